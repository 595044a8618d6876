//! A virtual CUDA device: the driver interface over a strict PTX interpreter.
