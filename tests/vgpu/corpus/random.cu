// Straight-line programs, printed by random.py. The same text is a CUDA file and a C program, so that a device can be
// compared with the host, bit for bit. No operation has a result that C leaves open, and nothing is contracted.
#ifdef __CUDACC__
#define FUNCTION static __device__ __forceinline__
#define F_ADD(a, b) __fadd_rn(a, b)
#define F_SUB(a, b) __fsub_rn(a, b)
#define F_MUL(a, b) __fmul_rn(a, b)
#define F_DIV(a, b) __fdiv_rn(a, b)
#define F_FMA(a, b, c) __fmaf_rn(a, b, c)
#define F_SQRT(a) __fsqrt_rn(a)
#define D_ADD(a, b) __dadd_rn(a, b)
#define D_MUL(a, b) __dmul_rn(a, b)
#define D_FMA(a, b, c) __fma_rn(a, b, c)
#define D_DIV(a, b) __ddiv_rn(a, b)
#define F_BITS(a) __float_as_uint(a)
#define D_BITS(a) ((u64)__double_as_longlong(a))
#define POPC(a) ((u32)__popc(a))
#define CLZ(a) ((u32)__clz((int)(a)))
#else
#include <math.h>
#include <stdio.h>
#include <string.h>
#define FUNCTION static
#define F_ADD(a, b) ((float)((a) + (b)))
#define F_SUB(a, b) ((float)((a) - (b)))
#define F_MUL(a, b) ((float)((a) * (b)))
#define F_DIV(a, b) ((float)((a) / (b)))
#define F_FMA(a, b, c) fmaf(a, b, c)
#define F_SQRT(a) sqrtf(a)
#define D_ADD(a, b) ((a) + (b))
#define D_MUL(a, b) ((a) * (b))
#define D_FMA(a, b, c) fma(a, b, c)
#define D_DIV(a, b) ((a) / (b))
#define POPC(a) ((u32)__builtin_popcount(a))
#define CLZ(a) ((a) ? (u32)__builtin_clz(a) : 32u)
#endif
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;
#ifndef __CUDACC__
static u32 F_BITS(float v) { u32 b; memcpy(&b, &v, 4); return b; }
static u64 D_BITS(double v) { u64 b; memcpy(&b, &v, 8); return b; }
#endif

FUNCTION u32 program0(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = a * b + c;
    double d_5 = d_2 < d_2 ? d_2 : -d_2;
    float f_6 = F_SUB(f_1, f_1);
    u32 u_7 = POPC(c);
    float f_8 = (float)(i64)l_3;
    u32 u_9 = c >> (u_4 & 31);
    float f_10 = f_0 < f_8 ? f_8 : f_0;
    u32 u_11 = a - u_7;
    double d_12 = D_MUL(d_5, 0.6180339887498949);
    u64 l_13 = l_3 * l_3;
    u32 u_14 = u_11 + u_9;
    u32 u_15 = u_4 / (b | 1);
    u32 u_16 = ~u_7;
    u64 l_17 = l_13 / (l_13 | 1);
    float f_18 = F_FMA(f_6, 0.0625f, f_10);
    u32 u_19 = u_7 < u_9 ? c : u_7;
    u64 l_20 = l_17 ^ l_3;
    u32 u_21 = u_19 * u_15;
    u32 u_22 = f_18 >= f_18 ? u_15 : u_9;
    float f_23 = (float)(i64)l_20;
    u32 u_24 = (u32)(((i64)(i32)u_19 * (i32)u_7) >> 32);
    float f_25 = F_MUL(F_DIV(f_8, 3.0f), 0.5f);
    float f_26 = F_DIV(f_23, F_ADD((f_23 < 0.0f ? -f_23 : f_23), 1.0f));
    u32 u_27 = u_14 - u_21;
    float f_28 = f_26 < f_23 ? f_8 : f_26;
    u32 u_29 = POPC(u_14);
    float f_30 = F_MUL(F_DIV(f_28, 3.0f), 0.5f);
    u64 l_31 = D_BITS(d_12);
    u32 u_32 = (u32)(i32)(short)u_14 + u_15;
    double d_33 = D_ADD(d_12, d_5);
    float f_34 = F_SUB(f_18, f_30);
    float f_35 = (float)u_21;
    u32 u_36 = u_24 >> (u_7 & 31);
    u32 u_37 = u_24 < a ? u_22 : u_24;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_7 * 9u) ^ (u_9 * 11u) ^ (u_11 * 13u) ^ (u_14 * 15u) ^ (u_15 * 17u) ^ (u_16 * 19u) ^ (u_19 * 21u) ^ (u_21 * 23u) ^ (u_22 * 25u) ^ (u_24 * 27u) ^ (u_27 * 29u) ^ (u_29 * 31u) ^ (u_32 * 33u) ^ (u_36 * 35u) ^ (u_37 * 37u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_6) ^ F_BITS(f_8) ^ F_BITS(f_10) ^ F_BITS(f_18) ^ F_BITS(f_23) ^ F_BITS(f_25) ^ F_BITS(f_26) ^ F_BITS(f_28) ^ F_BITS(f_30) ^ F_BITS(f_34) ^ F_BITS(f_35) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_13 ^ (l_13 >> 32)) ^ (u32)(l_17 ^ (l_17 >> 32)) ^ (u32)(l_20 ^ (l_20 >> 32)) ^ (u32)(l_31 ^ (l_31 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_5) ^ (D_BITS(d_5) >> 32)) ^ (u32)(D_BITS(d_12) ^ (D_BITS(d_12) >> 32)) ^ (u32)(D_BITS(d_33) ^ (D_BITS(d_33) >> 32));
}

FUNCTION u32 program1(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    double d_4 = (double)f_1;
    float f_5 = F_DIV(f_0, F_ADD((f_1 < 0.0f ? -f_1 : f_1), 1.0f));
    float f_6 = (float)(i64)l_3;
    u32 u_7 = (u32)(i32)(short)b + b;
    u64 l_8 = l_3 >> (u_7 & 63);
    float f_9 = F_SQRT(f_0 < 0.0f ? -f_0 : f_0);
    u32 u_10 = (u32)((i32)u_7 / (i32)((b & 0xff) | 1));
    u32 u_11 = F_BITS(f_1);
    u32 u_12 = c % (b | 1);
    u32 u_13 = u_10 << (u_11 & 31);
    u32 u_14 = ~u_7;
    float f_15 = F_ADD(f_9, f_1);
    double d_16 = D_DIV(d_4, D_ADD(D_MUL(d_4 < 0.0 ? -d_4 : d_4, 0.001), 1.0));
    u64 l_17 = l_3 + l_8;
    float f_18 = F_MUL(f_15, 0.75f);
    u64 l_19 = l_8 * l_17;
    float f_20 = F_DIV(f_6, F_ADD((f_1 < 0.0f ? -f_1 : f_1), 1.0f));
    double d_21 = d_4 < d_4 ? d_4 : -d_4;
    u32 u_22 = a ^ u_14;
    float f_23 = F_ADD(f_9, f_6);
    u32 u_24 = b == u_11 ? u_11 : b + 1u;
    u32 u_25 = (u32)(((u64)b * a) >> 32);
    u32 u_26 = u_10 == u_10 ? u_7 : u_10 + 1u;
    u32 u_27 = (u32)(unsigned char)u_13 * 3u;
    float f_28 = F_SUB(f_18, f_9);
    u32 u_29 = (u_24 >> 7) | (u_24 << 25);
    float f_30 = -f_18;
    u32 u_31 = (u32)l_3;
    float f_32 = F_FMA(f_28, 0.0625f, f_30);
    u32 u_33 = (u32)l_17;
    u32 u_34 = u_13 * c;
    double d_35 = (double)(i64)l_19;
    double d_36 = (double)f_20;
    float f_37 = f_20 < f_23 ? f_0 : f_20;
    u64 l_38 = l_17 * l_8;
    float f_39 = F_MUL(f_15, 0.75f);
    u32 u_40 = (u32)l_3;
    u64 l_41 = (u64)u_10 * u_25;
    float f_42 = (float)(i32)u_31;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_7 * 7u) ^ (u_10 * 9u) ^ (u_11 * 11u) ^ (u_12 * 13u) ^ (u_13 * 15u) ^ (u_14 * 17u) ^ (u_22 * 19u) ^ (u_24 * 21u) ^ (u_25 * 23u) ^ (u_26 * 25u) ^ (u_27 * 27u) ^ (u_29 * 29u) ^ (u_31 * 31u) ^ (u_33 * 33u) ^ (u_34 * 35u) ^ (u_40 * 37u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_5) ^ F_BITS(f_6) ^ F_BITS(f_9) ^ F_BITS(f_15) ^ F_BITS(f_18) ^ F_BITS(f_20) ^ F_BITS(f_23) ^ F_BITS(f_28) ^ F_BITS(f_30) ^ F_BITS(f_32) ^ F_BITS(f_37) ^ F_BITS(f_39) ^ F_BITS(f_42) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(l_17 ^ (l_17 >> 32)) ^ (u32)(l_19 ^ (l_19 >> 32)) ^ (u32)(l_38 ^ (l_38 >> 32)) ^ (u32)(l_41 ^ (l_41 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_4) ^ (D_BITS(d_4) >> 32)) ^ (u32)(D_BITS(d_16) ^ (D_BITS(d_16) >> 32)) ^ (u32)(D_BITS(d_21) ^ (D_BITS(d_21) >> 32)) ^ (u32)(D_BITS(d_35) ^ (D_BITS(d_35) >> 32)) ^ (u32)(D_BITS(d_36) ^ (D_BITS(d_36) >> 32));
}

FUNCTION u32 program2(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = c >> (a & 31);
    double d_5 = D_MUL(d_2, 0.6180339887498949);
    float f_6 = F_ADD(f_0, f_1);
    u64 l_7 = (u64)a * a;
    u64 l_8 = l_3 < l_7 ? l_3 : ~l_7;
    u32 u_9 = (u32)((i32)a >> (b & 31));
    float f_10 = F_SUB(f_1, f_0);
    u32 u_11 = c == u_9 ? u_4 : c + 1u;
    double d_12 = D_DIV(d_5, D_ADD(D_MUL(d_2 < 0.0 ? -d_2 : d_2, 0.001), 1.0));
    u32 u_13 = F_BITS(f_6);
    double d_14 = d_2 < d_5 ? d_5 : -d_2;
    u32 u_15 = u_4 | u_9;
    u64 l_16 = l_7 * l_7;
    u32 u_17 = (u32)((i32)b % (i32)((a & 0xffff) | 1));
    u32 u_18 = (u32)l_8;
    u32 u_19 = (a >> 7) | (a << 25);
    double d_20 = d_2 < d_2 ? d_2 : -d_2;
    u32 u_21 = u_19 & c;
    u32 u_22 = b * u_17;
    u32 u_23 = CLZ(u_13);
    u32 u_24 = u_9 % (u_22 | 1);
    u32 u_25 = (u32)(i32)(short)a + u_13;
    u32 u_26 = CLZ(u_18);
    u32 u_27 = ~u_11;
    float f_28 = F_FMA(f_6, 0.0625f, f_0);
    float f_29 = f_10 < f_28 ? f_1 : f_10;
    float f_30 = (float)(i32)u_21;
    u32 u_31 = u_4 < u_26 ? u_9 : u_4;
    u32 u_32 = (u32)l_7;
    double d_33 = D_MUL(d_14, 0.6180339887498949);
    float f_34 = F_DIV(f_29, F_ADD((f_10 < 0.0f ? -f_10 : f_10), 1.0f));
    u64 l_35 = l_16 < l_7 ? l_16 : ~l_7;
    double d_36 = d_33 < d_2 ? d_2 : -d_33;
    u32 u_37 = (i32)u_17 < (i32)u_19 ? u_19 : c;
    u32 u_38 = (u32)(l_8 >> 17);
    double d_39 = (double)(i64)l_8;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_9 * 9u) ^ (u_11 * 11u) ^ (u_13 * 13u) ^ (u_15 * 15u) ^ (u_17 * 17u) ^ (u_18 * 19u) ^ (u_19 * 21u) ^ (u_21 * 23u) ^ (u_22 * 25u) ^ (u_23 * 27u) ^ (u_24 * 29u) ^ (u_25 * 31u) ^ (u_26 * 33u) ^ (u_27 * 35u) ^ (u_31 * 37u) ^ (u_32 * 39u) ^ (u_37 * 41u) ^ (u_38 * 43u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_6) ^ F_BITS(f_10) ^ F_BITS(f_28) ^ F_BITS(f_29) ^ F_BITS(f_30) ^ F_BITS(f_34) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_7 ^ (l_7 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(l_16 ^ (l_16 >> 32)) ^ (u32)(l_35 ^ (l_35 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_5) ^ (D_BITS(d_5) >> 32)) ^ (u32)(D_BITS(d_12) ^ (D_BITS(d_12) >> 32)) ^ (u32)(D_BITS(d_14) ^ (D_BITS(d_14) >> 32)) ^ (u32)(D_BITS(d_20) ^ (D_BITS(d_20) >> 32)) ^ (u32)(D_BITS(d_33) ^ (D_BITS(d_33) >> 32)) ^ (u32)(D_BITS(d_36) ^ (D_BITS(d_36) >> 32)) ^ (u32)(D_BITS(d_39) ^ (D_BITS(d_39) >> 32));
}

FUNCTION u32 program3(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u64 l_4 = l_3 - l_3;
    u32 u_5 = b / (a | 1);
    double d_6 = D_ADD(d_2, d_2);
    u32 u_7 = POPC(b);
    u64 l_8 = l_4 - l_3;
    float f_9 = F_MUL(f_1, 0.75f);
    float f_10 = F_MUL(f_9, 0.75f);
    u64 l_11 = l_8 + l_8;
    float f_12 = f_10 < f_0 ? f_1 : f_10;
    u32 u_13 = c >> (c & 31);
    u32 u_14 = u_13 * u_5 + a;
    float f_15 = F_SQRT(f_10 < 0.0f ? -f_10 : f_10);
    u64 l_16 = l_3 ^ l_11;
    float f_17 = (float)d_6;
    u64 l_18 = (u64)u_5 * u_13;
    u64 l_19 = (u64)(i64)(i32)u_14;
    float f_20 = f_0 < f_9 ? f_0 : f_0;
    double d_21 = d_2 < d_2 ? d_2 : -d_2;
    u32 u_22 = (u32)(((u64)a * c) >> 32);
    u32 u_23 = u_14 & c;
    float f_24 = f_1 < f_15 ? f_17 : f_1;
    u32 u_25 = a * u_13 + u_7;
    float f_26 = -f_12;
    float f_27 = F_DIV(f_15, F_ADD((f_10 < 0.0f ? -f_10 : f_10), 1.0f));
    double d_28 = d_21 < d_21 ? d_21 : -d_21;
    double d_29 = D_FMA(d_21, 0.01, d_21);
    u32 u_30 = (u32)((i32)b / (i32)((u_7 & 0xff) | 1));
    u32 u_31 = u_22 < u_25 ? u_7 : u_22;
    float f_32 = (float)d_29;
    float f_33 = (float)(i32)a;
    float f_34 = -f_27;
    u32 u_35 = (u32)((i32)u_14 / (i32)((c & 0xff) | 1));
    float f_36 = F_ADD(f_33, f_9);
    u32 u_37 = a | u_14;
    u32 u_38 = (u32)((i32)u_23 >> (u_14 & 31));
    u32 u_39 = u_13 * u_38;
    u32 u_40 = (u32)((i32)a / (i32)((b & 0xff) | 1));
    u32 u_41 = c * u_37;
    u32 u_42 = (u32)(f_32 < f_33);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_5 * 7u) ^ (u_7 * 9u) ^ (u_13 * 11u) ^ (u_14 * 13u) ^ (u_22 * 15u) ^ (u_23 * 17u) ^ (u_25 * 19u) ^ (u_30 * 21u) ^ (u_31 * 23u) ^ (u_35 * 25u) ^ (u_37 * 27u) ^ (u_38 * 29u) ^ (u_39 * 31u) ^ (u_40 * 33u) ^ (u_41 * 35u) ^ (u_42 * 37u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_9) ^ F_BITS(f_10) ^ F_BITS(f_12) ^ F_BITS(f_15) ^ F_BITS(f_17) ^ F_BITS(f_20) ^ F_BITS(f_24) ^ F_BITS(f_26) ^ F_BITS(f_27) ^ F_BITS(f_32) ^ F_BITS(f_33) ^ F_BITS(f_34) ^ F_BITS(f_36) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_4 ^ (l_4 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(l_11 ^ (l_11 >> 32)) ^ (u32)(l_16 ^ (l_16 >> 32)) ^ (u32)(l_18 ^ (l_18 >> 32)) ^ (u32)(l_19 ^ (l_19 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_6) ^ (D_BITS(d_6) >> 32)) ^ (u32)(D_BITS(d_21) ^ (D_BITS(d_21) >> 32)) ^ (u32)(D_BITS(d_28) ^ (D_BITS(d_28) >> 32)) ^ (u32)(D_BITS(d_29) ^ (D_BITS(d_29) >> 32));
}

FUNCTION u32 program4(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u64 l_4 = (u64)(i64)(i32)c;
    u32 u_5 = f_1 >= f_1 ? b : c;
    u32 u_6 = a % (a | 1);
    u32 u_7 = u_5 << (b & 31);
    float f_8 = F_MUL(f_1, 0.75f);
    u32 u_9 = u_7 - b;
    u32 u_10 = u_7 % (c | 1);
    double d_11 = D_ADD(d_2, d_2);
    u32 u_12 = CLZ(a);
    u32 u_13 = (i32)u_9 < (i32)b ? b : u_6;
    u64 l_14 = l_4 < l_4 ? l_4 : ~l_4;
    u32 u_15 = (u32)((i32)b % (i32)((u_12 & 0xffff) | 1));
    u32 u_16 = u_9 << (u_10 & 31);
    u32 u_17 = u_5 >> (b & 31);
    u32 u_18 = u_17 / (u_10 | 1);
    float f_19 = F_SUB(f_0, f_8);
    u32 u_20 = c << (a & 31);
    float f_21 = F_FMA(f_0, 0.0625f, f_0);
    u32 u_22 = u_17 + b;
    double d_23 = D_MUL(d_2, 0.6180339887498949);
    u32 u_24 = u_12 * u_10;
    u32 u_25 = (u32)l_3;
    float f_26 = F_SUB(f_0, f_0);
    u32 u_27 = u_6 % (c | 1);
    u32 u_28 = u_13 % (u_24 | 1);
    u32 u_29 = (u32)((i32)a / (i32)((u_16 & 0xff) | 1));
    u32 u_30 = (u32)((i32)u_24 >> (c & 31));
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_5 * 7u) ^ (u_6 * 9u) ^ (u_7 * 11u) ^ (u_9 * 13u) ^ (u_10 * 15u) ^ (u_12 * 17u) ^ (u_13 * 19u) ^ (u_15 * 21u) ^ (u_16 * 23u) ^ (u_17 * 25u) ^ (u_18 * 27u) ^ (u_20 * 29u) ^ (u_22 * 31u) ^ (u_24 * 33u) ^ (u_25 * 35u) ^ (u_27 * 37u) ^ (u_28 * 39u) ^ (u_29 * 41u) ^ (u_30 * 43u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_8) ^ F_BITS(f_19) ^ F_BITS(f_21) ^ F_BITS(f_26) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_4 ^ (l_4 >> 32)) ^ (u32)(l_14 ^ (l_14 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_11) ^ (D_BITS(d_11) >> 32)) ^ (u32)(D_BITS(d_23) ^ (D_BITS(d_23) >> 32));
}

FUNCTION u32 program5(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = c ^ b;
    float f_5 = (float)b;
    float f_6 = F_FMA(f_0, 0.0625f, f_5);
    u32 u_7 = a >> (b & 31);
    u32 u_8 = (u32)(((i64)(i32)a * (i32)u_7) >> 32);
    u32 u_9 = b << (u_4 & 31);
    u32 u_10 = POPC(b);
    u32 u_11 = c * u_4 + b;
    u32 u_12 = (u32)(((i64)(i32)u_9 * (i32)b) >> 32);
    double d_13 = (double)(i64)l_3;
    double d_14 = d_2 < d_13 ? d_13 : -d_2;
    u32 u_15 = F_BITS(f_1);
    u32 u_16 = u_12 >> (u_4 & 31);
    u32 u_17 = u_8 % (u_8 | 1);
    float f_18 = F_FMA(f_0, 0.0625f, f_1);
    u32 u_19 = u_16 % (b | 1);
    u32 u_20 = (u32)(l_3 >> 17);
    float f_21 = F_FMA(f_18, 0.0625f, f_6);
    u64 l_22 = (u64)(i64)(i32)u_11;
    u32 u_23 = (u_4 >> 7) | (u_4 << 25);
    u32 u_24 = (i32)u_12 < (i32)c ? c : u_11;
    double d_25 = (double)f_5;
    u32 u_26 = (u32)l_22;
    u64 l_27 = l_22 + l_3;
    u32 u_28 = u_23 / (u_7 | 1);
    float f_29 = F_MUL(f_1, 0.75f);
    float f_30 = (float)(i32)c;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_7 * 9u) ^ (u_8 * 11u) ^ (u_9 * 13u) ^ (u_10 * 15u) ^ (u_11 * 17u) ^ (u_12 * 19u) ^ (u_15 * 21u) ^ (u_16 * 23u) ^ (u_17 * 25u) ^ (u_19 * 27u) ^ (u_20 * 29u) ^ (u_23 * 31u) ^ (u_24 * 33u) ^ (u_26 * 35u) ^ (u_28 * 37u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_5) ^ F_BITS(f_6) ^ F_BITS(f_18) ^ F_BITS(f_21) ^ F_BITS(f_29) ^ F_BITS(f_30) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_22 ^ (l_22 >> 32)) ^ (u32)(l_27 ^ (l_27 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_13) ^ (D_BITS(d_13) >> 32)) ^ (u32)(D_BITS(d_14) ^ (D_BITS(d_14) >> 32)) ^ (u32)(D_BITS(d_25) ^ (D_BITS(d_25) >> 32));
}

FUNCTION u32 program6(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    double d_4 = D_DIV(d_2, D_ADD(D_MUL(d_2 < 0.0 ? -d_2 : d_2, 0.001), 1.0));
    u32 u_5 = a % (c | 1);
    u32 u_6 = F_BITS(f_0);
    u64 l_7 = (u64)c * u_6;
    u32 u_8 = (u32)(((u64)u_6 * b) >> 32);
    float f_9 = F_ADD(f_1, f_0);
    u64 l_10 = l_3 < l_7 ? l_3 : ~l_7;
    u32 u_11 = u_6 | c;
    u32 u_12 = u_11 >> (b & 31);
    u32 u_13 = (u32)(unsigned char)u_12 * 3u;
    u32 u_14 = (u32)(i32)(short)u_5 + u_11;
    float f_15 = F_MUL(f_1, 0.75f);
    float f_16 = F_MUL(f_0, 0.75f);
    u32 u_17 = c ^ a;
    u64 l_18 = l_7 < l_10 ? l_7 : ~l_10;
    float f_19 = -f_0;
    u32 u_20 = (u32)((i32)u_12 % (i32)((u_5 & 0xffff) | 1));
    u64 l_21 = l_10 / (l_7 | 1);
    float f_22 = (float)u_11;
    u32 u_23 = ~u_17;
    u32 u_24 = F_BITS(f_0);
    float f_25 = F_DIV(f_19, F_ADD((f_19 < 0.0f ? -f_19 : f_19), 1.0f));
    double d_26 = (double)(i64)l_21;
    u32 u_27 = (u32)(unsigned char)a * 3u;
    float f_28 = F_MUL(F_DIV(f_15, 3.0f), 0.5f);
    double d_29 = D_FMA(d_4, 0.01, d_26);
    u32 u_30 = (u32)(((u64)u_23 * u_11) >> 32);
    u64 l_31 = l_7 << (u_6 & 63);
    float f_32 = (float)d_29;
    u32 u_33 = (u_30 >> 7) | (u_30 << 25);
    u32 u_34 = f_1 >= f_0 ? u_12 : b;
    float f_35 = (float)(i32)b;
    u32 u_36 = (u32)(l_31 >> 17);
    double d_37 = (double)f_25;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_5 * 7u) ^ (u_6 * 9u) ^ (u_8 * 11u) ^ (u_11 * 13u) ^ (u_12 * 15u) ^ (u_13 * 17u) ^ (u_14 * 19u) ^ (u_17 * 21u) ^ (u_20 * 23u) ^ (u_23 * 25u) ^ (u_24 * 27u) ^ (u_27 * 29u) ^ (u_30 * 31u) ^ (u_33 * 33u) ^ (u_34 * 35u) ^ (u_36 * 37u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_9) ^ F_BITS(f_15) ^ F_BITS(f_16) ^ F_BITS(f_19) ^ F_BITS(f_22) ^ F_BITS(f_25) ^ F_BITS(f_28) ^ F_BITS(f_32) ^ F_BITS(f_35) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_7 ^ (l_7 >> 32)) ^ (u32)(l_10 ^ (l_10 >> 32)) ^ (u32)(l_18 ^ (l_18 >> 32)) ^ (u32)(l_21 ^ (l_21 >> 32)) ^ (u32)(l_31 ^ (l_31 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_4) ^ (D_BITS(d_4) >> 32)) ^ (u32)(D_BITS(d_26) ^ (D_BITS(d_26) >> 32)) ^ (u32)(D_BITS(d_29) ^ (D_BITS(d_29) >> 32)) ^ (u32)(D_BITS(d_37) ^ (D_BITS(d_37) >> 32));
}

FUNCTION u32 program7(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = (u32)((i32)b >> (c & 31));
    u32 u_5 = b >> (b & 31);
    double d_6 = (double)f_0;
    float f_7 = (float)(i64)l_3;
    u32 u_8 = (u32)(l_3 >> 17);
    u32 u_9 = (u32)(i32)(short)a + b;
    float f_10 = F_MUL(F_DIV(f_1, 3.0f), 0.5f);
    double d_11 = D_ADD(d_2, d_2);
    u32 u_12 = b >> (u_5 & 31);
    float f_13 = F_MUL(F_DIV(f_1, 3.0f), 0.5f);
    u64 l_14 = l_3 - l_3;
    u64 l_15 = D_BITS(d_6);
    u32 u_16 = (u32)(f_10 < f_13);
    u32 u_17 = u_12 | a;
    double d_18 = (double)f_0;
    u64 l_19 = l_3 << (u_12 & 63);
    u32 u_20 = (u32)(((u64)u_5 * u_5) >> 32);
    u32 u_21 = ~a;
    u32 u_22 = u_20 ^ u_12;
    float f_23 = F_SUB(f_13, f_0);
    float f_24 = F_SUB(f_13, f_0);
    u32 u_25 = POPC(u_4);
    u32 u_26 = (u_17 >> 7) | (u_17 << 25);
    u32 u_27 = c & u_25;
    u32 u_28 = u_5 >> (u_12 & 31);
    u32 u_29 = u_27 * a + u_26;
    u32 u_30 = (u32)(i32)(signed char)u_8;
    u32 u_31 = (u32)(i32)(short)u_5 + u_26;
    float f_32 = F_FMA(f_1, 0.0625f, f_1);
    u32 u_33 = (u32)(f_7 < f_1);
    u32 u_34 = (u32)((i32)u_30 >> (a & 31));
    float f_35 = -f_13;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_5 * 9u) ^ (u_8 * 11u) ^ (u_9 * 13u) ^ (u_12 * 15u) ^ (u_16 * 17u) ^ (u_17 * 19u) ^ (u_20 * 21u) ^ (u_21 * 23u) ^ (u_22 * 25u) ^ (u_25 * 27u) ^ (u_26 * 29u) ^ (u_27 * 31u) ^ (u_28 * 33u) ^ (u_29 * 35u) ^ (u_30 * 37u) ^ (u_31 * 39u) ^ (u_33 * 41u) ^ (u_34 * 43u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_7) ^ F_BITS(f_10) ^ F_BITS(f_13) ^ F_BITS(f_23) ^ F_BITS(f_24) ^ F_BITS(f_32) ^ F_BITS(f_35) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_14 ^ (l_14 >> 32)) ^ (u32)(l_15 ^ (l_15 >> 32)) ^ (u32)(l_19 ^ (l_19 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_6) ^ (D_BITS(d_6) >> 32)) ^ (u32)(D_BITS(d_11) ^ (D_BITS(d_11) >> 32)) ^ (u32)(D_BITS(d_18) ^ (D_BITS(d_18) >> 32));
}

FUNCTION u32 program8(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = b % (b | 1);
    double d_5 = D_MUL(d_2, 0.6180339887498949);
    u32 u_6 = (u32)((i32)a % (i32)((a & 0xffff) | 1));
    u64 l_7 = l_3 - l_3;
    u64 l_8 = (u64)(i64)(i32)c;
    double d_9 = (double)f_0;
    u32 u_10 = POPC(c);
    float f_11 = F_MUL(F_DIV(f_0, 3.0f), 0.5f);
    u64 l_12 = l_7 << (u_10 & 63);
    u32 u_13 = F_BITS(f_11);
    u64 l_14 = l_12 >> (u_4 & 63);
    u64 l_15 = l_14 * l_14;
    u32 u_16 = F_BITS(f_0);
    u32 u_17 = u_16 % (a | 1);
    u64 l_18 = l_15 / (l_7 | 1);
    float f_19 = F_SUB(f_1, f_1);
    float f_20 = -f_19;
    float f_21 = (float)d_9;
    u32 u_22 = u_17 >> (u_10 & 31);
    float f_23 = F_DIV(f_1, F_ADD((f_0 < 0.0f ? -f_0 : f_0), 1.0f));
    u32 u_24 = c ^ u_17;
    double d_25 = (double)(i64)l_7;
    u32 u_26 = (u32)(((i64)(i32)u_10 * (i32)u_24) >> 32);
    float f_27 = (float)(i32)u_26;
    u32 u_28 = u_22 / (u_16 | 1);
    float f_29 = F_FMA(f_0, 0.0625f, f_27);
    double d_30 = D_ADD(d_25, d_2);
    u32 u_31 = (u32)(i32)(short)c + u_28;
    u32 u_32 = u_24 * u_16 + u_31;
    u64 l_33 = l_12 ^ l_15;
    u32 u_34 = (u32)(i32)(signed char)u_13;
    u32 u_35 = CLZ(u_16);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_6 * 9u) ^ (u_10 * 11u) ^ (u_13 * 13u) ^ (u_16 * 15u) ^ (u_17 * 17u) ^ (u_22 * 19u) ^ (u_24 * 21u) ^ (u_26 * 23u) ^ (u_28 * 25u) ^ (u_31 * 27u) ^ (u_32 * 29u) ^ (u_34 * 31u) ^ (u_35 * 33u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_11) ^ F_BITS(f_19) ^ F_BITS(f_20) ^ F_BITS(f_21) ^ F_BITS(f_23) ^ F_BITS(f_27) ^ F_BITS(f_29) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_7 ^ (l_7 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(l_12 ^ (l_12 >> 32)) ^ (u32)(l_14 ^ (l_14 >> 32)) ^ (u32)(l_15 ^ (l_15 >> 32)) ^ (u32)(l_18 ^ (l_18 >> 32)) ^ (u32)(l_33 ^ (l_33 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_5) ^ (D_BITS(d_5) >> 32)) ^ (u32)(D_BITS(d_9) ^ (D_BITS(d_9) >> 32)) ^ (u32)(D_BITS(d_25) ^ (D_BITS(d_25) >> 32)) ^ (u32)(D_BITS(d_30) ^ (D_BITS(d_30) >> 32));
}

FUNCTION u32 program9(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = (u32)(((u64)a * c) >> 32);
    float f_5 = (float)(i32)u_4;
    float f_6 = -f_5;
    double d_7 = D_FMA(d_2, 0.01, d_2);
    u32 u_8 = (u32)(((u64)b * c) >> 32);
    u32 u_9 = (u_4 >> 7) | (u_4 << 25);
    u32 u_10 = (u32)(((i64)(i32)u_9 * (i32)b) >> 32);
    u32 u_11 = (u32)(((i64)(i32)u_4 * (i32)u_9) >> 32);
    u32 u_12 = ~u_9;
    u32 u_13 = (u32)(unsigned char)u_12 * 3u;
    u64 l_14 = l_3 < l_3 ? l_3 : ~l_3;
    u32 u_15 = POPC(c);
    float f_16 = F_ADD(f_0, f_5);
    float f_17 = (float)d_2;
    u32 u_18 = (u32)((i32)u_8 >> (u_12 & 31));
    u32 u_19 = u_4 * u_10;
    float f_20 = F_SQRT(f_5 < 0.0f ? -f_5 : f_5);
    u64 l_21 = l_14 >> (u_12 & 63);
    u64 l_22 = l_3 * l_3;
    u32 u_23 = f_5 >= f_17 ? u_13 : u_18;
    u64 l_24 = (u64)c * u_8;
    u32 u_25 = (u32)(((i64)(i32)u_13 * (i32)u_11) >> 32);
    u64 l_26 = l_14 + l_24;
    u32 u_27 = u_8 - u_19;
    u32 u_28 = u_25 * u_8;
    u32 u_29 = (u32)(l_26 >> 17);
    u64 l_30 = l_22 + l_24;
    u32 u_31 = (u32)l_3;
    u64 l_32 = l_3 * l_14;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_8 * 9u) ^ (u_9 * 11u) ^ (u_10 * 13u) ^ (u_11 * 15u) ^ (u_12 * 17u) ^ (u_13 * 19u) ^ (u_15 * 21u) ^ (u_18 * 23u) ^ (u_19 * 25u) ^ (u_23 * 27u) ^ (u_25 * 29u) ^ (u_27 * 31u) ^ (u_28 * 33u) ^ (u_29 * 35u) ^ (u_31 * 37u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_5) ^ F_BITS(f_6) ^ F_BITS(f_16) ^ F_BITS(f_17) ^ F_BITS(f_20) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_14 ^ (l_14 >> 32)) ^ (u32)(l_21 ^ (l_21 >> 32)) ^ (u32)(l_22 ^ (l_22 >> 32)) ^ (u32)(l_24 ^ (l_24 >> 32)) ^ (u32)(l_26 ^ (l_26 >> 32)) ^ (u32)(l_30 ^ (l_30 >> 32)) ^ (u32)(l_32 ^ (l_32 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_7) ^ (D_BITS(d_7) >> 32));
}

FUNCTION u32 program10(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    float f_4 = (float)d_2;
    u32 u_5 = ~b;
    float f_6 = F_MUL(f_4, 0.75f);
    double d_7 = (double)(i32)c;
    u32 u_8 = (u32)(l_3 >> 17);
    u32 u_9 = (u32)((i32)a / (i32)((c & 0xff) | 1));
    float f_10 = F_SQRT(f_4 < 0.0f ? -f_4 : f_4);
    u32 u_11 = b | u_5;
    u32 u_12 = u_9 < c ? u_8 : u_9;
    u32 u_13 = CLZ(u_11);
    float f_14 = F_ADD(f_0, f_4);
    double d_15 = d_2 < d_2 ? d_2 : -d_2;
    u64 l_16 = (u64)((i64)l_3 >> (u_11 & 63));
    u32 u_17 = u_13 + a;
    u32 u_18 = (u32)(i32)(short)u_17 + c;
    float f_19 = F_MUL(f_4, 0.75f);
    u32 u_20 = (i32)b < (i32)u_9 ? u_9 : u_8;
    float f_21 = (float)u_18;
    u32 u_22 = u_5 << (b & 31);
    u32 u_23 = u_11 * u_13 + c;
    double d_24 = (double)(i64)l_16;
    u32 u_25 = (u32)((i32)u_13 >> (u_18 & 31));
    u32 u_26 = f_21 >= f_14 ? c : u_8;
    u32 u_27 = c << (a & 31);
    double d_28 = D_FMA(d_2, 0.01, d_15);
    float f_29 = F_SQRT(f_21 < 0.0f ? -f_21 : f_21);
    u64 l_30 = l_16 ^ l_16;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_5 * 7u) ^ (u_8 * 9u) ^ (u_9 * 11u) ^ (u_11 * 13u) ^ (u_12 * 15u) ^ (u_13 * 17u) ^ (u_17 * 19u) ^ (u_18 * 21u) ^ (u_20 * 23u) ^ (u_22 * 25u) ^ (u_23 * 27u) ^ (u_25 * 29u) ^ (u_26 * 31u) ^ (u_27 * 33u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_4) ^ F_BITS(f_6) ^ F_BITS(f_10) ^ F_BITS(f_14) ^ F_BITS(f_19) ^ F_BITS(f_21) ^ F_BITS(f_29) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_16 ^ (l_16 >> 32)) ^ (u32)(l_30 ^ (l_30 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_7) ^ (D_BITS(d_7) >> 32)) ^ (u32)(D_BITS(d_15) ^ (D_BITS(d_15) >> 32)) ^ (u32)(D_BITS(d_24) ^ (D_BITS(d_24) >> 32)) ^ (u32)(D_BITS(d_28) ^ (D_BITS(d_28) >> 32));
}

FUNCTION u32 program11(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = POPC(c);
    u32 u_5 = b * b;
    u32 u_6 = c | b;
    float f_7 = (float)d_2;
    u64 l_8 = (u64)u_6 * c;
    u32 u_9 = (u32)l_8;
    u32 u_10 = u_6 * b + u_4;
    double d_11 = (double)(i64)l_8;
    float f_12 = (float)(i32)a;
    u32 u_13 = (u_10 >> 7) | (u_10 << 25);
    u32 u_14 = (u32)(i32)(signed char)c;
    float f_15 = F_SQRT(f_0 < 0.0f ? -f_0 : f_0);
    u32 u_16 = (u32)((i32)u_10 >> (u_4 & 31));
    float f_17 = (float)(i32)u_14;
    u32 u_18 = (i32)c < (i32)u_13 ? u_13 : u_10;
    float f_19 = F_ADD(f_1, f_12);
    float f_20 = (float)(i32)u_16;
    u32 u_21 = u_14 | u_9;
    double d_22 = (double)f_19;
    double d_23 = D_MUL(d_11, 0.6180339887498949);
    u64 l_24 = l_3 << (u_14 & 63);
    u32 u_25 = b == u_4 ? a : b + 1u;
    u32 u_26 = POPC(u_25);
    u32 u_27 = u_25 % (u_6 | 1);
    u32 u_28 = u_14 & u_27;
    u32 u_29 = (u32)(((u64)u_13 * u_14) >> 32);
    u32 u_30 = u_25 == u_27 ? u_16 : u_25 + 1u;
    double d_31 = D_ADD(d_11, d_22);
    float f_32 = F_FMA(f_7, 0.0625f, f_17);
    u64 l_33 = l_24 - l_3;
    u32 u_34 = u_14 << (u_29 & 31);
    float f_35 = F_DIV(f_20, F_ADD((f_1 < 0.0f ? -f_1 : f_1), 1.0f));
    u64 l_36 = l_3 << (u_34 & 63);
    u64 l_37 = (u64)u_34 * u_30;
    u64 l_38 = (u64)(i64)(i32)u_34;
    u32 u_39 = (u32)(((i64)(i32)u_28 * (i32)u_30) >> 32);
    u64 l_40 = l_36 >> (u_10 & 63);
    u32 u_41 = (u32)l_38;
    u32 u_42 = u_13 >> (u_18 & 31);
    float f_43 = F_MUL(F_DIV(f_35, 3.0f), 0.5f);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_5 * 9u) ^ (u_6 * 11u) ^ (u_9 * 13u) ^ (u_10 * 15u) ^ (u_13 * 17u) ^ (u_14 * 19u) ^ (u_16 * 21u) ^ (u_18 * 23u) ^ (u_21 * 25u) ^ (u_25 * 27u) ^ (u_26 * 29u) ^ (u_27 * 31u) ^ (u_28 * 33u) ^ (u_29 * 35u) ^ (u_30 * 37u) ^ (u_34 * 39u) ^ (u_39 * 41u) ^ (u_41 * 43u) ^ (u_42 * 45u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_7) ^ F_BITS(f_12) ^ F_BITS(f_15) ^ F_BITS(f_17) ^ F_BITS(f_19) ^ F_BITS(f_20) ^ F_BITS(f_32) ^ F_BITS(f_35) ^ F_BITS(f_43) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(l_24 ^ (l_24 >> 32)) ^ (u32)(l_33 ^ (l_33 >> 32)) ^ (u32)(l_36 ^ (l_36 >> 32)) ^ (u32)(l_37 ^ (l_37 >> 32)) ^ (u32)(l_38 ^ (l_38 >> 32)) ^ (u32)(l_40 ^ (l_40 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_11) ^ (D_BITS(d_11) >> 32)) ^ (u32)(D_BITS(d_22) ^ (D_BITS(d_22) >> 32)) ^ (u32)(D_BITS(d_23) ^ (D_BITS(d_23) >> 32)) ^ (u32)(D_BITS(d_31) ^ (D_BITS(d_31) >> 32));
}

FUNCTION u32 program12(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = c / (b | 1);
    double d_5 = (double)(i32)c;
    u32 u_6 = f_1 >= f_1 ? c : b;
    float f_7 = F_MUL(F_DIV(f_1, 3.0f), 0.5f);
    u32 u_8 = a ^ b;
    u32 u_9 = (u32)((i32)u_4 % (i32)((b & 0xffff) | 1));
    u32 u_10 = u_6 * u_9;
    u64 l_11 = (u64)u_9 * b;
    u32 u_12 = u_4 * a + u_9;
    u32 u_13 = (c >> 7) | (c << 25);
    u32 u_14 = (u32)(i32)(signed char)u_10;
    u64 l_15 = l_11 >> (u_14 & 63);
    u32 u_16 = (u32)(l_3 >> 17);
    u64 l_17 = l_3 - l_15;
    float f_18 = F_MUL(F_DIV(f_7, 3.0f), 0.5f);
    float f_19 = F_ADD(f_18, f_1);
    float f_20 = F_MUL(f_18, 0.75f);
    u32 u_21 = u_12 ^ u_6;
    u32 u_22 = u_10 * u_12 + u_12;
    float f_23 = F_MUL(f_1, 0.75f);
    u32 u_24 = (u32)((i32)u_22 >> (u_4 & 31));
    u32 u_25 = u_16 << (u_14 & 31);
    u32 u_26 = (u32)l_3;
    double d_27 = d_5 < d_5 ? d_5 : -d_5;
    float f_28 = F_MUL(f_18, 0.75f);
    float f_29 = F_SQRT(f_7 < 0.0f ? -f_7 : f_7);
    float f_30 = (float)(i64)l_17;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_6 * 9u) ^ (u_8 * 11u) ^ (u_9 * 13u) ^ (u_10 * 15u) ^ (u_12 * 17u) ^ (u_13 * 19u) ^ (u_14 * 21u) ^ (u_16 * 23u) ^ (u_21 * 25u) ^ (u_22 * 27u) ^ (u_24 * 29u) ^ (u_25 * 31u) ^ (u_26 * 33u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_7) ^ F_BITS(f_18) ^ F_BITS(f_19) ^ F_BITS(f_20) ^ F_BITS(f_23) ^ F_BITS(f_28) ^ F_BITS(f_29) ^ F_BITS(f_30) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_11 ^ (l_11 >> 32)) ^ (u32)(l_15 ^ (l_15 >> 32)) ^ (u32)(l_17 ^ (l_17 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_5) ^ (D_BITS(d_5) >> 32)) ^ (u32)(D_BITS(d_27) ^ (D_BITS(d_27) >> 32));
}

FUNCTION u32 program13(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = b << (c & 31);
    u32 u_5 = CLZ(b);
    double d_6 = D_MUL(d_2, 0.6180339887498949);
    double d_7 = D_DIV(d_6, D_ADD(D_MUL(d_2 < 0.0 ? -d_2 : d_2, 0.001), 1.0));
    float f_8 = F_SUB(f_0, f_1);
    u32 u_9 = POPC(u_5);
    double d_10 = (double)(i64)l_3;
    double d_11 = (double)f_0;
    u32 u_12 = (u32)(i32)(signed char)a;
    u32 u_13 = (u32)(l_3 >> 17);
    u32 u_14 = f_1 >= f_1 ? u_4 : u_5;
    u32 u_15 = (u32)((i32)u_4 >> (u_4 & 31));
    u32 u_16 = (u32)((i32)b / (i32)((u_9 & 0xff) | 1));
    u32 u_17 = u_12 < u_5 ? u_5 : u_12;
    float f_18 = F_ADD(f_0, f_8);
    u32 u_19 = u_12 + b;
    float f_20 = F_ADD(f_1, f_18);
    u32 u_21 = u_4 ^ u_19;
    u32 u_22 = u_13 == u_9 ? u_17 : u_13 + 1u;
    double d_23 = (double)(i64)l_3;
    u32 u_24 = u_19 >> (u_13 & 31);
    u32 u_25 = u_16 * u_13;
    u64 l_26 = l_3 - l_3;
    double d_27 = D_FMA(d_7, 0.01, d_2);
    double d_28 = D_FMA(d_23, 0.01, d_7);
    float f_29 = F_SUB(f_18, f_1);
    u32 u_30 = (u32)(((i64)(i32)b * (i32)a) >> 32);
    float f_31 = (float)a;
    u32 u_32 = u_5 == u_12 ? c : u_5 + 1u;
    u32 u_33 = u_22 * u_16 + u_15;
    float f_34 = (float)u_12;
    u64 l_35 = l_3 << (u_32 & 63);
    u64 l_36 = l_35 < l_26 ? l_35 : ~l_26;
    float f_37 = F_DIV(f_31, F_ADD((f_1 < 0.0f ? -f_1 : f_1), 1.0f));
    float f_38 = (float)(i32)u_15;
    u64 l_39 = l_35 - l_35;
    double d_40 = D_FMA(d_23, 0.01, d_6);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_5 * 9u) ^ (u_9 * 11u) ^ (u_12 * 13u) ^ (u_13 * 15u) ^ (u_14 * 17u) ^ (u_15 * 19u) ^ (u_16 * 21u) ^ (u_17 * 23u) ^ (u_19 * 25u) ^ (u_21 * 27u) ^ (u_22 * 29u) ^ (u_24 * 31u) ^ (u_25 * 33u) ^ (u_30 * 35u) ^ (u_32 * 37u) ^ (u_33 * 39u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_8) ^ F_BITS(f_18) ^ F_BITS(f_20) ^ F_BITS(f_29) ^ F_BITS(f_31) ^ F_BITS(f_34) ^ F_BITS(f_37) ^ F_BITS(f_38) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_26 ^ (l_26 >> 32)) ^ (u32)(l_35 ^ (l_35 >> 32)) ^ (u32)(l_36 ^ (l_36 >> 32)) ^ (u32)(l_39 ^ (l_39 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_6) ^ (D_BITS(d_6) >> 32)) ^ (u32)(D_BITS(d_7) ^ (D_BITS(d_7) >> 32)) ^ (u32)(D_BITS(d_10) ^ (D_BITS(d_10) >> 32)) ^ (u32)(D_BITS(d_11) ^ (D_BITS(d_11) >> 32)) ^ (u32)(D_BITS(d_23) ^ (D_BITS(d_23) >> 32)) ^ (u32)(D_BITS(d_27) ^ (D_BITS(d_27) >> 32)) ^ (u32)(D_BITS(d_28) ^ (D_BITS(d_28) >> 32)) ^ (u32)(D_BITS(d_40) ^ (D_BITS(d_40) >> 32));
}

FUNCTION u32 program14(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = a | b;
    float f_5 = F_SUB(f_1, f_0);
    float f_6 = F_MUL(f_1, 0.75f);
    u32 u_7 = (u32)(((i64)(i32)u_4 * (i32)a) >> 32);
    u64 l_8 = (u64)((i64)l_3 >> (b & 63));
    u32 u_9 = (u32)l_3;
    u32 u_10 = (u32)(((i64)(i32)b * (i32)b) >> 32);
    float f_11 = F_MUL(f_0, 0.75f);
    double d_12 = D_ADD(d_2, d_2);
    u32 u_13 = (u32)(l_8 >> 17);
    u32 u_14 = a - b;
    u32 u_15 = u_9 < b ? u_7 : u_9;
    u32 u_16 = (u32)(((i64)(i32)u_10 * (i32)u_15) >> 32);
    float f_17 = (float)u_14;
    u32 u_18 = (u32)(f_0 < f_0);
    u32 u_19 = (u32)(l_8 >> 17);
    float f_20 = -f_6;
    float f_21 = -f_5;
    u32 u_22 = ~u_7;
    u32 u_23 = (u32)((i32)u_15 >> (a & 31));
    u32 u_24 = a - u_13;
    u32 u_25 = u_24 / (u_22 | 1);
    float f_26 = -f_11;
    u32 u_27 = u_23 >> (a & 31);
    u32 u_28 = u_13 - u_16;
    u32 u_29 = (u32)l_3;
    u32 u_30 = (u32)(l_3 >> 17);
    u32 u_31 = u_7 % (u_28 | 1);
    u64 l_32 = l_3 * l_8;
    double d_33 = D_MUL(d_12, 0.6180339887498949);
    u32 u_34 = (u32)(((u64)u_10 * u_7) >> 32);
    u64 l_35 = l_32 * l_8;
    u32 u_36 = F_BITS(f_26);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_7 * 9u) ^ (u_9 * 11u) ^ (u_10 * 13u) ^ (u_13 * 15u) ^ (u_14 * 17u) ^ (u_15 * 19u) ^ (u_16 * 21u) ^ (u_18 * 23u) ^ (u_19 * 25u) ^ (u_22 * 27u) ^ (u_23 * 29u) ^ (u_24 * 31u) ^ (u_25 * 33u) ^ (u_27 * 35u) ^ (u_28 * 37u) ^ (u_29 * 39u) ^ (u_30 * 41u) ^ (u_31 * 43u) ^ (u_34 * 45u) ^ (u_36 * 47u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_5) ^ F_BITS(f_6) ^ F_BITS(f_11) ^ F_BITS(f_17) ^ F_BITS(f_20) ^ F_BITS(f_21) ^ F_BITS(f_26) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(l_32 ^ (l_32 >> 32)) ^ (u32)(l_35 ^ (l_35 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_12) ^ (D_BITS(d_12) >> 32)) ^ (u32)(D_BITS(d_33) ^ (D_BITS(d_33) >> 32));
}

FUNCTION u32 program15(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = (u32)((i32)b >> (a & 31));
    u32 u_5 = a ^ u_4;
    u32 u_6 = u_4 * u_4;
    double d_7 = D_DIV(d_2, D_ADD(D_MUL(d_2 < 0.0 ? -d_2 : d_2, 0.001), 1.0));
    float f_8 = F_FMA(f_0, 0.0625f, f_0);
    double d_9 = (double)f_0;
    u64 l_10 = l_3 - l_3;
    double d_11 = (double)(i32)a;
    double d_12 = D_DIV(d_11, D_ADD(D_MUL(d_11 < 0.0 ? -d_11 : d_11, 0.001), 1.0));
    u32 u_13 = u_4 + b;
    u32 u_14 = POPC(u_5);
    float f_15 = -f_0;
    u32 u_16 = u_4 >> (u_13 & 31);
    u32 u_17 = b / (a | 1);
    u64 l_18 = l_10 - l_3;
    u32 u_19 = (b >> 7) | (b << 25);
    float f_20 = F_MUL(F_DIV(f_1, 3.0f), 0.5f);
    u32 u_21 = u_6 | u_4;
    u32 u_22 = (u32)(unsigned char)c * 3u;
    double d_23 = D_DIV(d_11, D_ADD(D_MUL(d_11 < 0.0 ? -d_11 : d_11, 0.001), 1.0));
    u32 u_24 = u_14 / (u_5 | 1);
    float f_25 = -f_8;
    u32 u_26 = (u32)((i32)c % (i32)((u_6 & 0xffff) | 1));
    u32 u_27 = (u32)(i32)(signed char)u_16;
    u64 l_28 = (u64)u_19 * u_16;
    u32 u_29 = ~u_16;
    u32 u_30 = u_24 < u_13 ? u_17 : u_24;
    float f_31 = (float)(i64)l_18;
    u64 l_32 = l_18 / (l_18 | 1);
    double d_33 = (double)(i64)l_3;
    float f_34 = F_MUL(F_DIV(f_1, 3.0f), 0.5f);
    u32 u_35 = (u_16 >> 7) | (u_16 << 25);
    u32 u_36 = f_8 >= f_25 ? u_24 : b;
    float f_37 = F_FMA(f_31, 0.0625f, f_0);
    u64 l_38 = l_28 << (u_29 & 63);
    u32 u_39 = u_27 >> (u_26 & 31);
    u32 u_40 = u_27 - u_29;
    float f_41 = F_ADD(f_8, f_1);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_5 * 9u) ^ (u_6 * 11u) ^ (u_13 * 13u) ^ (u_14 * 15u) ^ (u_16 * 17u) ^ (u_17 * 19u) ^ (u_19 * 21u) ^ (u_21 * 23u) ^ (u_22 * 25u) ^ (u_24 * 27u) ^ (u_26 * 29u) ^ (u_27 * 31u) ^ (u_29 * 33u) ^ (u_30 * 35u) ^ (u_35 * 37u) ^ (u_36 * 39u) ^ (u_39 * 41u) ^ (u_40 * 43u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_8) ^ F_BITS(f_15) ^ F_BITS(f_20) ^ F_BITS(f_25) ^ F_BITS(f_31) ^ F_BITS(f_34) ^ F_BITS(f_37) ^ F_BITS(f_41) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_10 ^ (l_10 >> 32)) ^ (u32)(l_18 ^ (l_18 >> 32)) ^ (u32)(l_28 ^ (l_28 >> 32)) ^ (u32)(l_32 ^ (l_32 >> 32)) ^ (u32)(l_38 ^ (l_38 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_7) ^ (D_BITS(d_7) >> 32)) ^ (u32)(D_BITS(d_9) ^ (D_BITS(d_9) >> 32)) ^ (u32)(D_BITS(d_11) ^ (D_BITS(d_11) >> 32)) ^ (u32)(D_BITS(d_12) ^ (D_BITS(d_12) >> 32)) ^ (u32)(D_BITS(d_23) ^ (D_BITS(d_23) >> 32)) ^ (u32)(D_BITS(d_33) ^ (D_BITS(d_33) >> 32));
}

FUNCTION u32 program16(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    float f_4 = F_MUL(F_DIV(f_1, 3.0f), 0.5f);
    float f_5 = F_MUL(f_1, 0.75f);
    float f_6 = (float)(i32)b;
    u32 u_7 = a * c;
    u64 l_8 = (u64)(i64)(i32)a;
    u32 u_9 = (u32)(((i64)(i32)a * (i32)c) >> 32);
    float f_10 = F_MUL(f_0, 0.75f);
    u64 l_11 = D_BITS(d_2);
    float f_12 = F_ADD(f_0, f_0);
    u32 u_13 = u_9 << (u_7 & 31);
    float f_14 = (float)(i32)a;
    u64 l_15 = l_3 / (l_11 | 1);
    double d_16 = D_MUL(d_2, 0.6180339887498949);
    u64 l_17 = l_8 ^ l_3;
    u32 u_18 = (u32)(i32)(signed char)u_9;
    u64 l_19 = l_17 + l_17;
    float f_20 = F_MUL(f_6, 0.75f);
    u32 u_21 = ~u_7;
    u32 u_22 = ~u_21;
    float f_23 = F_FMA(f_20, 0.0625f, f_6);
    float f_24 = F_FMA(f_14, 0.0625f, f_23);
    double d_25 = (double)f_10;
    double d_26 = D_FMA(d_16, 0.01, d_25);
    u32 u_27 = u_9 / (u_7 | 1);
    u32 u_28 = u_21 == u_22 ? c : u_21 + 1u;
    u64 l_29 = l_11 + l_8;
    u32 u_30 = c + u_28;
    float f_31 = F_SUB(f_0, f_5);
    u64 l_32 = l_29 << (b & 63);
    float f_33 = F_ADD(f_5, f_0);
    u64 l_34 = l_29 << (b & 63);
    u32 u_35 = (u32)(l_8 >> 17);
    u32 u_36 = (u32)(f_1 < f_10);
    u64 l_37 = l_32 - l_15;
    u32 u_38 = (u32)(((i64)(i32)u_22 * (i32)u_30) >> 32);
    double d_39 = D_FMA(d_25, 0.01, d_26);
    u32 u_40 = (u32)l_8;
    u32 u_41 = a | a;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_7 * 7u) ^ (u_9 * 9u) ^ (u_13 * 11u) ^ (u_18 * 13u) ^ (u_21 * 15u) ^ (u_22 * 17u) ^ (u_27 * 19u) ^ (u_28 * 21u) ^ (u_30 * 23u) ^ (u_35 * 25u) ^ (u_36 * 27u) ^ (u_38 * 29u) ^ (u_40 * 31u) ^ (u_41 * 33u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_4) ^ F_BITS(f_5) ^ F_BITS(f_6) ^ F_BITS(f_10) ^ F_BITS(f_12) ^ F_BITS(f_14) ^ F_BITS(f_20) ^ F_BITS(f_23) ^ F_BITS(f_24) ^ F_BITS(f_31) ^ F_BITS(f_33) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(l_11 ^ (l_11 >> 32)) ^ (u32)(l_15 ^ (l_15 >> 32)) ^ (u32)(l_17 ^ (l_17 >> 32)) ^ (u32)(l_19 ^ (l_19 >> 32)) ^ (u32)(l_29 ^ (l_29 >> 32)) ^ (u32)(l_32 ^ (l_32 >> 32)) ^ (u32)(l_34 ^ (l_34 >> 32)) ^ (u32)(l_37 ^ (l_37 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_16) ^ (D_BITS(d_16) >> 32)) ^ (u32)(D_BITS(d_25) ^ (D_BITS(d_25) >> 32)) ^ (u32)(D_BITS(d_26) ^ (D_BITS(d_26) >> 32)) ^ (u32)(D_BITS(d_39) ^ (D_BITS(d_39) >> 32));
}

FUNCTION u32 program17(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = ~a;
    float f_5 = F_FMA(f_1, 0.0625f, f_0);
    u32 u_6 = (i32)u_4 < (i32)b ? b : c;
    u32 u_7 = (u32)(((u64)a * u_4) >> 32);
    u32 u_8 = (u32)((i32)u_4 >> (u_7 & 31));
    u32 u_9 = (u32)(((i64)(i32)b * (i32)u_4) >> 32);
    u32 u_10 = u_4 * u_6 + b;
    u32 u_11 = (u32)(unsigned char)u_9 * 3u;
    float f_12 = F_MUL(F_DIV(f_5, 3.0f), 0.5f);
    u32 u_13 = POPC(b);
    u32 u_14 = f_0 >= f_5 ? u_9 : u_9;
    u32 u_15 = (u32)(i32)(short)u_4 + u_10;
    u32 u_16 = c % (a | 1);
    double d_17 = d_2 < d_2 ? d_2 : -d_2;
    u64 l_18 = (u64)(i64)(i32)u_15;
    u64 l_19 = l_3 + l_3;
    u32 u_20 = (u32)(((i64)(i32)u_16 * (i32)u_11) >> 32);
    float f_21 = F_FMA(f_5, 0.0625f, f_1);
    float f_22 = F_SQRT(f_5 < 0.0f ? -f_5 : f_5);
    u32 u_23 = (u32)l_18;
    u32 u_24 = (u32)(i32)(short)b + u_10;
    u64 l_25 = l_3 - l_3;
    u32 u_26 = (u32)(l_25 >> 17);
    u32 u_27 = (u32)((i32)u_13 / (i32)((u_9 & 0xff) | 1));
    u32 u_28 = (u_10 >> 7) | (u_10 << 25);
    u32 u_29 = CLZ(u_6);
    u32 u_30 = (i32)u_7 < (i32)a ? a : u_10;
    u32 u_31 = (u32)(((i64)(i32)u_15 * (i32)u_15) >> 32);
    u32 u_32 = u_13 == u_11 ? u_13 : u_13 + 1u;
    u32 u_33 = u_27 + u_13;
    u32 u_34 = u_8 % (a | 1);
    float f_35 = (float)(i64)l_3;
    u64 l_36 = l_18 >> (u_9 & 63);
    double d_37 = D_DIV(d_17, D_ADD(D_MUL(d_17 < 0.0 ? -d_17 : d_17, 0.001), 1.0));
    u32 u_38 = u_15 | u_27;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_6 * 9u) ^ (u_7 * 11u) ^ (u_8 * 13u) ^ (u_9 * 15u) ^ (u_10 * 17u) ^ (u_11 * 19u) ^ (u_13 * 21u) ^ (u_14 * 23u) ^ (u_15 * 25u) ^ (u_16 * 27u) ^ (u_20 * 29u) ^ (u_23 * 31u) ^ (u_24 * 33u) ^ (u_26 * 35u) ^ (u_27 * 37u) ^ (u_28 * 39u) ^ (u_29 * 41u) ^ (u_30 * 43u) ^ (u_31 * 45u) ^ (u_32 * 47u) ^ (u_33 * 49u) ^ (u_34 * 51u) ^ (u_38 * 53u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_5) ^ F_BITS(f_12) ^ F_BITS(f_21) ^ F_BITS(f_22) ^ F_BITS(f_35) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_18 ^ (l_18 >> 32)) ^ (u32)(l_19 ^ (l_19 >> 32)) ^ (u32)(l_25 ^ (l_25 >> 32)) ^ (u32)(l_36 ^ (l_36 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_17) ^ (D_BITS(d_17) >> 32)) ^ (u32)(D_BITS(d_37) ^ (D_BITS(d_37) >> 32));
}

FUNCTION u32 program18(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u64 l_4 = l_3 + l_3;
    float f_5 = (float)(i32)b;
    u64 l_6 = l_4 * l_3;
    float f_7 = f_1 < f_1 ? f_5 : f_1;
    u32 u_8 = b * c;
    u32 u_9 = (u32)(i32)(signed char)u_8;
    u32 u_10 = (u32)l_6;
    u32 u_11 = F_BITS(f_5);
    float f_12 = f_7 < f_1 ? f_0 : f_7;
    u32 u_13 = c % (u_11 | 1);
    float f_14 = f_1 < f_5 ? f_12 : f_1;
    float f_15 = (float)(i32)b;
    u64 l_16 = (u64)((i64)l_4 >> (u_11 & 63));
    double d_17 = D_ADD(d_2, d_2);
    u32 u_18 = (u_8 >> 7) | (u_8 << 25);
    u64 l_19 = l_3 >> (u_8 & 63);
    u32 u_20 = c * u_9 + a;
    float f_21 = -f_1;
    float f_22 = (float)d_2;
    u32 u_23 = u_8 * u_13 + u_20;
    float f_24 = (float)(i32)u_13;
    u32 u_25 = F_BITS(f_22);
    float f_26 = (float)(i32)u_8;
    u32 u_27 = u_20 * u_9;
    u64 l_28 = D_BITS(d_17);
    float f_29 = (float)(i32)u_10;
    float f_30 = (float)d_2;
    u32 u_31 = (u32)((i32)a / (i32)((u_27 & 0xff) | 1));
    u32 u_32 = u_23 < u_31 ? u_25 : u_23;
    u32 u_33 = (u32)(((u64)u_27 * u_9) >> 32);
    u32 u_34 = (u32)(unsigned char)u_11 * 3u;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_8 * 7u) ^ (u_9 * 9u) ^ (u_10 * 11u) ^ (u_11 * 13u) ^ (u_13 * 15u) ^ (u_18 * 17u) ^ (u_20 * 19u) ^ (u_23 * 21u) ^ (u_25 * 23u) ^ (u_27 * 25u) ^ (u_31 * 27u) ^ (u_32 * 29u) ^ (u_33 * 31u) ^ (u_34 * 33u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_5) ^ F_BITS(f_7) ^ F_BITS(f_12) ^ F_BITS(f_14) ^ F_BITS(f_15) ^ F_BITS(f_21) ^ F_BITS(f_22) ^ F_BITS(f_24) ^ F_BITS(f_26) ^ F_BITS(f_29) ^ F_BITS(f_30) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_4 ^ (l_4 >> 32)) ^ (u32)(l_6 ^ (l_6 >> 32)) ^ (u32)(l_16 ^ (l_16 >> 32)) ^ (u32)(l_19 ^ (l_19 >> 32)) ^ (u32)(l_28 ^ (l_28 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_17) ^ (D_BITS(d_17) >> 32));
}

FUNCTION u32 program19(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    float f_4 = (float)c;
    u32 u_5 = POPC(c);
    u64 l_6 = l_3 ^ l_3;
    u32 u_7 = (u32)l_3;
    u32 u_8 = b == b ? u_7 : b + 1u;
    double d_9 = D_FMA(d_2, 0.01, d_2);
    float f_10 = F_ADD(f_1, f_4);
    u32 u_11 = ~u_5;
    u32 u_12 = F_BITS(f_4);
    u32 u_13 = u_11 == u_12 ? a : u_11 + 1u;
    float f_14 = F_MUL(F_DIV(f_4, 3.0f), 0.5f);
    u64 l_15 = l_3 << (u_7 & 63);
    double d_16 = d_2 < d_2 ? d_2 : -d_2;
    u32 u_17 = u_12 % (u_5 | 1);
    u32 u_18 = b * u_8;
    u32 u_19 = u_17 % (c | 1);
    float f_20 = (float)u_12;
    u32 u_21 = CLZ(u_17);
    u32 u_22 = (u32)(f_0 < f_0);
    u32 u_23 = (i32)u_12 < (i32)u_19 ? u_19 : u_21;
    double d_24 = D_DIV(d_9, D_ADD(D_MUL(d_2 < 0.0 ? -d_2 : d_2, 0.001), 1.0));
    u32 u_25 = (u_17 >> 7) | (u_17 << 25);
    u32 u_26 = (u32)(i32)(short)b + u_11;
    u64 l_27 = l_6 >> (c & 63);
    u64 l_28 = l_3 >> (u_21 & 63);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_5 * 7u) ^ (u_7 * 9u) ^ (u_8 * 11u) ^ (u_11 * 13u) ^ (u_12 * 15u) ^ (u_13 * 17u) ^ (u_17 * 19u) ^ (u_18 * 21u) ^ (u_19 * 23u) ^ (u_21 * 25u) ^ (u_22 * 27u) ^ (u_23 * 29u) ^ (u_25 * 31u) ^ (u_26 * 33u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_4) ^ F_BITS(f_10) ^ F_BITS(f_14) ^ F_BITS(f_20) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_6 ^ (l_6 >> 32)) ^ (u32)(l_15 ^ (l_15 >> 32)) ^ (u32)(l_27 ^ (l_27 >> 32)) ^ (u32)(l_28 ^ (l_28 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_9) ^ (D_BITS(d_9) >> 32)) ^ (u32)(D_BITS(d_16) ^ (D_BITS(d_16) >> 32)) ^ (u32)(D_BITS(d_24) ^ (D_BITS(d_24) >> 32));
}

FUNCTION u32 program20(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u64 l_4 = l_3 + l_3;
    u32 u_5 = b & b;
    u32 u_6 = (u32)(i32)(short)c + u_5;
    u32 u_7 = c * b + a;
    u32 u_8 = u_7 | u_5;
    u32 u_9 = (u32)(unsigned char)b * 3u;
    u64 l_10 = l_4 << (a & 63);
    u32 u_11 = ~u_6;
    float f_12 = (float)d_2;
    u32 u_13 = (u32)(((u64)u_11 * u_11) >> 32);
    double d_14 = D_FMA(d_2, 0.01, d_2);
    u32 u_15 = u_9 * u_13;
    u32 u_16 = f_12 >= f_1 ? b : u_6;
    float f_17 = F_SQRT(f_1 < 0.0f ? -f_1 : f_1);
    u32 u_18 = (u32)(i32)(short)u_13 + u_5;
    float f_19 = F_SQRT(f_12 < 0.0f ? -f_12 : f_12);
    double d_20 = (double)(i64)l_3;
    u32 u_21 = a % (u_5 | 1);
    u32 u_22 = u_11 & c;
    float f_23 = F_DIV(f_12, F_ADD((f_1 < 0.0f ? -f_1 : f_1), 1.0f));
    float f_24 = F_ADD(f_19, f_17);
    u32 u_25 = (u32)(i32)(short)u_15 + u_15;
    u32 u_26 = (u32)(((u64)u_5 * u_8) >> 32);
    u32 u_27 = (u_5 >> 7) | (u_5 << 25);
    u32 u_28 = (i32)u_15 < (i32)u_27 ? u_27 : b;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_5 * 7u) ^ (u_6 * 9u) ^ (u_7 * 11u) ^ (u_8 * 13u) ^ (u_9 * 15u) ^ (u_11 * 17u) ^ (u_13 * 19u) ^ (u_15 * 21u) ^ (u_16 * 23u) ^ (u_18 * 25u) ^ (u_21 * 27u) ^ (u_22 * 29u) ^ (u_25 * 31u) ^ (u_26 * 33u) ^ (u_27 * 35u) ^ (u_28 * 37u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_12) ^ F_BITS(f_17) ^ F_BITS(f_19) ^ F_BITS(f_23) ^ F_BITS(f_24) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_4 ^ (l_4 >> 32)) ^ (u32)(l_10 ^ (l_10 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_14) ^ (D_BITS(d_14) >> 32)) ^ (u32)(D_BITS(d_20) ^ (D_BITS(d_20) >> 32));
}

FUNCTION u32 program21(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = (u32)(((i64)(i32)a * (i32)b) >> 32);
    u64 l_5 = l_3 - l_3;
    float f_6 = (float)d_2;
    u32 u_7 = a < c ? c : a;
    float f_8 = (float)(i64)l_3;
    float f_9 = (float)d_2;
    u32 u_10 = (u32)((i32)c >> (c & 31));
    u64 l_11 = l_3 + l_3;
    double d_12 = D_FMA(d_2, 0.01, d_2);
    u32 u_13 = CLZ(a);
    u32 u_14 = b >> (a & 31);
    u32 u_15 = (u32)(i32)(short)u_10 + a;
    u32 u_16 = (u32)(i32)(short)u_7 + u_13;
    u32 u_17 = (i32)a < (i32)a ? a : a;
    u32 u_18 = (u32)(((u64)u_13 * u_4) >> 32);
    u32 u_19 = (u32)((i32)u_4 >> (b & 31));
    u32 u_20 = (u32)((i32)u_13 >> (a & 31));
    double d_21 = d_2 < d_2 ? d_2 : -d_2;
    float f_22 = (float)(i32)u_13;
    float f_23 = F_FMA(f_1, 0.0625f, f_9);
    u32 u_24 = c == u_19 ? u_10 : c + 1u;
    double d_25 = D_ADD(d_21, d_12);
    u64 l_26 = l_3 + l_5;
    u32 u_27 = u_20 * a;
    u32 u_28 = (u32)((i32)c % (i32)((u_15 & 0xffff) | 1));
    double d_29 = (double)(i64)l_3;
    double d_30 = (double)(i64)l_26;
    double d_31 = (double)f_22;
    u32 u_32 = a * b + u_15;
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_7 * 9u) ^ (u_10 * 11u) ^ (u_13 * 13u) ^ (u_14 * 15u) ^ (u_15 * 17u) ^ (u_16 * 19u) ^ (u_17 * 21u) ^ (u_18 * 23u) ^ (u_19 * 25u) ^ (u_20 * 27u) ^ (u_24 * 29u) ^ (u_27 * 31u) ^ (u_28 * 33u) ^ (u_32 * 35u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_6) ^ F_BITS(f_8) ^ F_BITS(f_9) ^ F_BITS(f_22) ^ F_BITS(f_23) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_5 ^ (l_5 >> 32)) ^ (u32)(l_11 ^ (l_11 >> 32)) ^ (u32)(l_26 ^ (l_26 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_12) ^ (D_BITS(d_12) >> 32)) ^ (u32)(D_BITS(d_21) ^ (D_BITS(d_21) >> 32)) ^ (u32)(D_BITS(d_25) ^ (D_BITS(d_25) >> 32)) ^ (u32)(D_BITS(d_29) ^ (D_BITS(d_29) >> 32)) ^ (u32)(D_BITS(d_30) ^ (D_BITS(d_30) >> 32)) ^ (u32)(D_BITS(d_31) ^ (D_BITS(d_31) >> 32));
}

FUNCTION u32 program22(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u64 l_4 = (u64)((i64)l_3 >> (a & 63));
    float f_5 = (float)(i64)l_3;
    u32 u_6 = (i32)b < (i32)c ? c : c;
    float f_7 = -f_1;
    float f_8 = (float)(i32)a;
    u64 l_9 = l_4 ^ l_3;
    float f_10 = F_ADD(f_0, f_0);
    double d_11 = (double)f_5;
    float f_12 = F_ADD(f_5, f_1);
    float f_13 = f_8 < f_1 ? f_12 : f_8;
    u32 u_14 = (u32)(l_9 >> 17);
    u32 u_15 = (c >> 7) | (c << 25);
    u32 u_16 = u_15 + u_14;
    double d_17 = (double)(i32)u_16;
    u32 u_18 = f_7 >= f_10 ? b : b;
    u32 u_19 = a / (u_6 | 1);
    u32 u_20 = b & c;
    u32 u_21 = u_18 - u_15;
    u32 u_22 = (u32)((i32)u_21 >> (a & 31));
    u32 u_23 = (u32)(((i64)(i32)c * (i32)b) >> 32);
    float f_24 = (float)(i32)u_6;
    float f_25 = f_24 < f_12 ? f_7 : f_24;
    u32 u_26 = (u32)(f_1 < f_10);
    u32 u_27 = (i32)u_6 < (i32)b ? b : u_19;
    u64 l_28 = l_3 ^ l_3;
    u32 u_29 = u_15 + u_26;
    float f_30 = F_SQRT(f_24 < 0.0f ? -f_24 : f_24);
    float f_31 = F_DIV(f_5, F_ADD((f_1 < 0.0f ? -f_1 : f_1), 1.0f));
    double d_32 = (double)f_24;
    u64 l_33 = l_9 - l_3;
    float f_34 = F_SQRT(f_8 < 0.0f ? -f_8 : f_8);
    u32 u_35 = u_6 + a;
    u32 u_36 = u_15 >> (c & 31);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_6 * 7u) ^ (u_14 * 9u) ^ (u_15 * 11u) ^ (u_16 * 13u) ^ (u_18 * 15u) ^ (u_19 * 17u) ^ (u_20 * 19u) ^ (u_21 * 21u) ^ (u_22 * 23u) ^ (u_23 * 25u) ^ (u_26 * 27u) ^ (u_27 * 29u) ^ (u_29 * 31u) ^ (u_35 * 33u) ^ (u_36 * 35u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_5) ^ F_BITS(f_7) ^ F_BITS(f_8) ^ F_BITS(f_10) ^ F_BITS(f_12) ^ F_BITS(f_13) ^ F_BITS(f_24) ^ F_BITS(f_25) ^ F_BITS(f_30) ^ F_BITS(f_31) ^ F_BITS(f_34) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_4 ^ (l_4 >> 32)) ^ (u32)(l_9 ^ (l_9 >> 32)) ^ (u32)(l_28 ^ (l_28 >> 32)) ^ (u32)(l_33 ^ (l_33 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_11) ^ (D_BITS(d_11) >> 32)) ^ (u32)(D_BITS(d_17) ^ (D_BITS(d_17) >> 32)) ^ (u32)(D_BITS(d_32) ^ (D_BITS(d_32) >> 32));
}

FUNCTION u32 program23(u32 a, u32 b, u32 c) {
    float f_0 = F_MUL((float)(i32)(a & 0xffff), 0.125f);
    float f_1 = F_SUB((float)(b & 0xfff), 1000.5f);
    double d_2 = D_MUL((double)(i32)b, 0.0009765625);
    u64 l_3 = ((u64)a << 32) | c;
    u32 u_4 = a << (b & 31);
    u32 u_5 = (u32)((i32)a % (i32)((u_4 & 0xffff) | 1));
    u32 u_6 = u_5 % (a | 1);
    float f_7 = F_SUB(f_1, f_1);
    u64 l_8 = l_3 - l_3;
    u32 u_9 = b == a ? b : b + 1u;
    float f_10 = (float)u_5;
    float f_11 = F_DIV(f_1, F_ADD((f_10 < 0.0f ? -f_10 : f_10), 1.0f));
    float f_12 = F_FMA(f_10, 0.0625f, f_11);
    float f_13 = (float)d_2;
    u32 u_14 = (u32)(((u64)b * u_9) >> 32);
    float f_15 = (float)(i32)u_14;
    float f_16 = F_FMA(f_13, 0.0625f, f_7);
    double d_17 = (double)(i64)l_8;
    u32 u_18 = u_9 << (u_5 & 31);
    float f_19 = F_SQRT(f_11 < 0.0f ? -f_11 : f_11);
    u32 u_20 = b | c;
    u32 u_21 = u_14 < u_9 ? c : u_14;
    u32 u_22 = CLZ(u_14);
    double d_23 = (double)(i32)u_22;
    float f_24 = F_MUL(f_15, 0.75f);
    u32 u_25 = CLZ(u_5);
    double d_26 = D_ADD(d_23, d_23);
    float f_27 = F_MUL(f_24, 0.75f);
    u32 u_28 = POPC(u_18);
    u32 u_29 = u_14 >> (a & 31);
    double d_30 = D_FMA(d_2, 0.01, d_2);
    u32 u_31 = f_1 >= f_0 ? u_25 : u_25;
    u32 u_32 = F_BITS(f_10);
    u32 u_33 = (u32)(l_3 >> 17);
    float f_34 = F_DIV(f_15, F_ADD((f_7 < 0.0f ? -f_7 : f_7), 1.0f));
    float f_35 = (float)(i32)u_31;
    u32 u_36 = u_6 >> (u_28 & 31);
    u32 u_37 = u_21 + u_5;
    u32 u_38 = u_28 == c ? u_21 : u_28 + 1u;
    u32 u_39 = (u32)l_8;
    double d_40 = D_MUL(d_26, 0.6180339887498949);
    return (a * 1u) ^ (b * 3u) ^ (c * 5u) ^ (u_4 * 7u) ^ (u_5 * 9u) ^ (u_6 * 11u) ^ (u_9 * 13u) ^ (u_14 * 15u) ^ (u_18 * 17u) ^ (u_20 * 19u) ^ (u_21 * 21u) ^ (u_22 * 23u) ^ (u_25 * 25u) ^ (u_28 * 27u) ^ (u_29 * 29u) ^ (u_31 * 31u) ^ (u_32 * 33u) ^ (u_33 * 35u) ^ (u_36 * 37u) ^ (u_37 * 39u) ^ (u_38 * 41u) ^ (u_39 * 43u) ^ F_BITS(f_0) ^ F_BITS(f_1) ^ F_BITS(f_7) ^ F_BITS(f_10) ^ F_BITS(f_11) ^ F_BITS(f_12) ^ F_BITS(f_13) ^ F_BITS(f_15) ^ F_BITS(f_16) ^ F_BITS(f_19) ^ F_BITS(f_24) ^ F_BITS(f_27) ^ F_BITS(f_34) ^ F_BITS(f_35) ^ (u32)(l_3 ^ (l_3 >> 32)) ^ (u32)(l_8 ^ (l_8 >> 32)) ^ (u32)(D_BITS(d_2) ^ (D_BITS(d_2) >> 32)) ^ (u32)(D_BITS(d_17) ^ (D_BITS(d_17) >> 32)) ^ (u32)(D_BITS(d_23) ^ (D_BITS(d_23) >> 32)) ^ (u32)(D_BITS(d_26) ^ (D_BITS(d_26) >> 32)) ^ (u32)(D_BITS(d_30) ^ (D_BITS(d_30) >> 32)) ^ (u32)(D_BITS(d_40) ^ (D_BITS(d_40) >> 32));
}

FUNCTION u32 run(int which, u32 a, u32 b, u32 c) {
    switch (which) {
        case 0: return program0(a, b, c);
        case 1: return program1(a, b, c);
        case 2: return program2(a, b, c);
        case 3: return program3(a, b, c);
        case 4: return program4(a, b, c);
        case 5: return program5(a, b, c);
        case 6: return program6(a, b, c);
        case 7: return program7(a, b, c);
        case 8: return program8(a, b, c);
        case 9: return program9(a, b, c);
        case 10: return program10(a, b, c);
        case 11: return program11(a, b, c);
        case 12: return program12(a, b, c);
        case 13: return program13(a, b, c);
        case 14: return program14(a, b, c);
        case 15: return program15(a, b, c);
        case 16: return program16(a, b, c);
        case 17: return program17(a, b, c);
        case 18: return program18(a, b, c);
        case 19: return program19(a, b, c);
        case 20: return program20(a, b, c);
        case 21: return program21(a, b, c);
        case 22: return program22(a, b, c);
        case 23: return program23(a, b, c);
        default: return 0;
    }
}

#ifdef __CUDACC__
extern "C" __global__ void random_programs(const u32* x, u32* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[blockIdx.y * n + i] = run(blockIdx.y, x[3 * i], x[3 * i + 1], x[3 * i + 2]);
}
#else
int main(void) {
    u32 a, b, c;
    while (scanf("%u %u %u", &a, &b, &c) == 3)
        for (int which = 0; which < 24; ++which) printf("%u\n", run(which, a, b, c));
    return 0;
}
#endif
