#!/usr/bin/env python3
"""Prints random.cu: straight-line programs over integers, floats and doubles, defined alike on device and host."""
import random

R = random.Random(20240229)
HEAD = """// Straight-line programs, printed by random.py. The same text is a CUDA file and a C program, so that a device can be
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
"""


def program(n):
    names = {"u": ["a", "b", "c"], "f": [], "d": [], "l": []}
    lines = []

    def pick(kind):
        return R.choice(names[kind])

    def fresh(kind, text):
        ctype = {"u": "u32", "f": "float", "d": "double", "l": "u64"}[kind]
        name = f"{kind}_{len(lines)}"
        lines.append(f"    {ctype} {name} = {text};")
        names[kind].append(name)

    fresh("f", "F_MUL((float)(i32)(a & 0xffff), 0.125f)")
    fresh("f", "F_SUB((float)(b & 0xfff), 1000.5f)")
    fresh("d", "D_MUL((double)(i32)b, 0.0009765625)")
    fresh("l", "((u64)a << 32) | c")
    for _ in range(R.randint(24, 40)):
        kind = R.choice("uuuuffdl")
        if kind == "u":
            x, y, z = pick("u"), pick("u"), pick("u")
            fresh("u", R.choice([
                f"{x} + {y}", f"{x} - {y}", f"{x} * {y}", f"{x} & {y}", f"{x} | {y}", f"{x} ^ {y}", f"~{x}",
                f"{x} << ({y} & 31)", f"{x} >> ({y} & 31)", f"(u32)((i32){x} >> ({y} & 31))",
                f"{x} / ({y} | 1)", f"{x} % ({y} | 1)", f"(u32)((i32){x} / (i32)(({y} & 0xff) | 1))",
                f"(u32)((i32){x} % (i32)(({y} & 0xffff) | 1))", f"{x} < {y} ? {z} : {x}",
                f"(i32){x} < (i32){y} ? {y} : {z}", f"{x} == {y} ? {z} : {x} + 1u", f"POPC({x})", f"CLZ({x})",
                f"(u32)(unsigned char){x} * 3u", f"(u32)(i32)(signed char){x}", f"(u32)(i32)(short){x} + {y}",
                f"(u32)(((u64){x} * {y}) >> 32)", f"(u32)(((i64)(i32){x} * (i32){y}) >> 32)", f"{x} * {y} + {z}",
                f"({x} >> 7) | ({x} << 25)", f"(u32){pick('l')}", f"(u32)({pick('l')} >> 17)", f"F_BITS({pick('f')})",
                f"(u32)({pick('f')} < {pick('f')})", f"{pick('f')} >= {pick('f')} ? {x} : {y}",
            ]))
        elif kind == "f":
            x, y, z = pick("f"), pick("f"), pick("f")
            fresh("f", R.choice([
                f"F_ADD({x}, {y})", f"F_SUB({x}, {y})", f"F_MUL({x}, 0.75f)", f"F_MUL(F_DIV({x}, 3.0f), 0.5f)",
                f"F_FMA({x}, 0.0625f, {y})", f"{x} < {y} ? {z} : {x}", f"F_SQRT({x} < 0.0f ? -{x} : {x})",
                f"F_DIV({x}, F_ADD(({y} < 0.0f ? -{y} : {y}), 1.0f))", f"(float){pick('u')}", f"(float)(i32){pick('u')}",
                f"-{x}", f"(float){pick('d')}", f"(float)(i64){pick('l')}",
            ]))
        elif kind == "d":
            x, y = pick("d"), pick("d")
            fresh("d", R.choice([
                f"D_ADD({x}, {y})", f"D_MUL({x}, 0.6180339887498949)", f"D_FMA({x}, 0.01, {y})",
                f"D_DIV({x}, D_ADD(D_MUL({y} < 0.0 ? -{y} : {y}, 0.001), 1.0))", f"(double){pick('f')}",
                f"(double)(i32){pick('u')}", f"(double)(i64){pick('l')}", f"{x} < {y} ? {y} : -{x}",
            ]))
        else:
            x, y = pick("l"), pick("l")
            fresh("l", R.choice([
                f"{x} + {y}", f"{x} - {y}", f"{x} * {y}", f"{x} ^ {y}", f"{x} << ({pick('u')} & 63)",
                f"{x} >> ({pick('u')} & 63)", f"(u64)((i64){x} >> ({pick('u')} & 63))", f"(u64){pick('u')} * {pick('u')}",
                f"(u64)(i64)(i32){pick('u')}", f"{x} / ({y} | 1)", f"D_BITS({pick('d')})", f"{x} < {y} ? {x} : ~{y}",
            ]))
    total = " ^ ".join(
        [f"({n} * {2 * i + 1}u)" for i, n in enumerate(names["u"])]
        + [f"F_BITS({n})" for n in names["f"]]
        + [f"(u32)({n} ^ ({n} >> 32))" for n in names["l"]]
        + [f"(u32)(D_BITS({n}) ^ (D_BITS({n}) >> 32))" for n in names["d"]])
    return f"FUNCTION u32 program{n}(u32 a, u32 b, u32 c) {{\n" + "\n".join(lines) + f"\n    return {total};\n}}\n"


COUNT = 24
print(HEAD)
for n in range(COUNT):
    print(program(n))
cases = "\n".join(f"        case {n}: return program{n}(a, b, c);" for n in range(COUNT))
print(f"FUNCTION u32 run(int which, u32 a, u32 b, u32 c) {{\n    switch (which) {{\n{cases}\n        default: return 0;\n    }}\n}}\n")
print("""#ifdef __CUDACC__
extern "C" __global__ void random_programs(const u32* x, u32* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[blockIdx.y * n + i] = run(blockIdx.y, x[3 * i], x[3 * i + 1], x[3 * i + 2]);
}
#else
int main(void) {
    u32 a, b, c;
    while (scanf("%u %u %u", &a, &b, &c) == 3)
        for (int which = 0; which < """ + str(COUNT) + """; ++which) printf("%u\\n", run(which, a, b, c));
    return 0;
}
#endif""")
