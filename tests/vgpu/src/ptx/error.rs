//! Why a module was refused.

use thiserror::Error;

/// A refused piece of PTX with its place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("ptx line {line}{in_kernel}: {kind}: `{text}`", in_kernel = InKernel(kernel))]
pub struct LoadError {
    /// Kernel or function, if inside one.
    pub kernel: Option<String>,
    /// Line of the text, counted from 1.
    pub line: u32,
    /// The text in question: that line.
    pub text: String,
    /// What is wrong with it.
    pub kind: LoadErrorKind,
}

struct InKernel<'a>(&'a Option<String>);

impl std::fmt::Display for InKernel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(k) => write!(f, " in `{k}`"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a piece of PTX.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadErrorKind {
    /// Not PTX at this place.
    #[error("expected {expected}, found `{found}`")]
    Syntax {
        /// What the grammar wants here.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A directive that is not known.
    #[error("unknown directive `{name}`")]
    Directive {
        /// The directive.
        name: String,
    },
    /// A PTX version that is not known.
    #[error("PTX version {major}.{minor} is not supported (7.0 to 9.5 are)")]
    Version {
        /// Major.
        major: u32,
        /// Minor.
        minor: u32,
    },
    /// A target that is not known.
    #[error("target `{name}` is not supported")]
    Target {
        /// The target.
        name: String,
    },
    /// An opcode that is not known.
    #[error("unknown opcode `{name}`")]
    Opcode {
        /// The opcode without modifiers.
        name: String,
    },
    /// A known opcode with modifiers that are not known.
    #[error("unknown form `{form}`; known: {known}")]
    Form {
        /// Opcode with modifiers.
        form: String,
        /// The forms that this opcode has.
        known: String,
    },
    /// A register that was not declared.
    #[error("undeclared register `{name}`")]
    Register {
        /// The register.
        name: String,
    },
    /// A register whose size does not fit the instruction.
    #[error("register `{name}` is {have}, the instruction wants {need}")]
    RegisterKind {
        /// The register.
        name: String,
        /// What it was declared as.
        have: &'static str,
        /// What the instruction wants.
        need: &'static str,
    },
    /// A name that was not declared.
    #[error("undeclared symbol `{name}`")]
    Symbol {
        /// The name.
        name: String,
    },
    /// A label that does not exist.
    #[error("undefined label `{name}`")]
    Label {
        /// The label.
        name: String,
    },
    /// A name declared twice.
    #[error("`{name}` is declared twice")]
    Redeclared {
        /// The name.
        name: String,
    },
    /// A wrong number of operands.
    #[error("{have} operands, the instruction wants {need}")]
    Operands {
        /// Operands wanted.
        need: usize,
        /// Operands found.
        have: usize,
    },
    /// An operand of the wrong kind.
    #[error("operand {index} must be {need}")]
    Operand {
        /// Position, counted from 1.
        index: usize,
        /// What is wanted.
        need: &'static str,
    },
    /// A number that does not fit.
    #[error("number out of range ({limit})")]
    Range {
        /// The range.
        limit: &'static str,
    },
    /// Something larger than the device or the decoder allows.
    #[error("{what} exceeds {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A function that calls itself.
    #[error("`{name}` is recursive, which is not supported")]
    Recursive {
        /// The function.
        name: String,
    },
    /// A call of a function whose body is not in the module.
    #[error("function `{name}` has no body in this module")]
    External {
        /// The function.
        name: String,
    },
    /// PTX that is valid but that this device does not model.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
}
