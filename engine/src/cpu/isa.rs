//! Which instructions the kernels use: found once, part of what decides the last bits of a result.

use std::sync::OnceLock;

use crate::error::{Error, Result};

/// The environment variable that forces an instruction set.
const VARIABLE: &str = "MONOPATH_ISA";
/// What it may say.
const ALLOWED: &str = "portable, avx2 or avx512, as far as this machine has them";

/// A set of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// What the build assumes.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
}

impl Isa {
    /// All, the widest last.
    pub const ALL: [Isa; 3] = [Isa::Portable, Isa::Avx2, Isa::Avx512];

    /// Its name, as `MONOPATH_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match self {
                Isa::Portable => true,
                Isa::Avx2 => avx2(),
                Isa::Avx512 => {
                    avx2()
                        && is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512vl")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512bw")
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Portable
        }
    }

    /// What kernels run with: `MONOPATH_ISA`, or else the widest that this machine has. Read once.
    ///
    /// # Errors
    /// [`Error::Setting`] if the variable names none, or one that the machine lacks.
    pub fn chosen() -> Result<Isa> {
        static CHOSEN: OnceLock<Result<Isa>> = OnceLock::new();
        CHOSEN.get_or_init(|| Isa::parse(std::env::var_os(VARIABLE).as_deref())).clone()
    }

    /// [`Isa::chosen`], or portable code where that is an error, which opening a CPU reports.
    #[inline]
    pub(super) fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Isa::chosen().unwrap_or(Isa::Portable))
    }

    fn parse(value: Option<&std::ffi::OsStr>) -> Result<Isa> {
        let widest = || Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap_or(Isa::Portable);
        let Some(value) = value else { return Ok(widest()) };
        Isa::ALL.into_iter().find(|isa| value == isa.name() && isa.is_available()).ok_or_else(|| {
            Error::Setting { name: VARIABLE, value: value.to_string_lossy().into_owned(), range: ALLOWED }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_instruction_set_is_an_error() {
        assert_eq!(Isa::parse(Some("portable".as_ref())), Ok(Isa::Portable));
        assert!(Isa::parse(None).unwrap().is_available());
        let error = Isa::parse(Some("sse9".as_ref())).unwrap_err();
        assert!(error.to_string().contains("MONOPATH_ISA = sse9"), "{error}");
        for isa in Isa::ALL {
            assert_eq!(Isa::parse(Some(isa.name().as_ref())).is_ok(), isa.is_available());
        }
    }
}
