//! Modules: what kind of image a program handed over, and the PTX loaded from it.

use std::sync::Arc;

use super::code::Code;
use super::config::Config;
use super::device::Refusal;
use super::report::Kind;
use crate::ptx;

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    /// Its context.
    pub context: u64,
    /// The PTX.
    pub ptx: Arc<ptx::Module>,
}

/// A kernel that the program asked for by name.
#[derive(Debug)]
pub struct Function {
    /// Its module.
    pub module: u64,
    /// The module's PTX; shared, so that queued launches outlive handles.
    pub ptx: Arc<ptx::Module>,
    /// Index of the kernel in the module.
    pub index: usize,
    /// Dynamic shared memory that the program opted in to, in bytes.
    pub optin: u32,
    /// `CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT`, a hint.
    pub carveout: i32,
}

impl Function {
    /// The kernel.
    pub fn kernel(&self) -> &ptx::Kernel {
        &self.ptx.kernels()[self.index]
    }
}

/// The start of an image that is no PTX.
fn binary_image(image: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 4] = [
        (b"\x7fELF", "a cubin (machine code in an ELF file)"),
        (b"\x50\xed\x55\xba", "a fatbin"),
        (b"\xb1\x43\x62\x46", "a fatbin wrapper (made by nvcc for the CUDA runtime)"),
        (b"BC\xc0\xde", "LLVM bitcode"),
    ];
    MAGICS.iter().find(|(magic, _)| image.starts_with(magic)).map(|(_, name)| *name)
}

/// The PTX text of an image given as bytes without a terminating zero.
///
/// # Errors
/// Cubins, fatbins and everything else that is no PTX text.
pub fn text_of(image: &[u8]) -> Result<&str, Refusal> {
    if let Some(name) = binary_image(image) {
        return Err(Refusal::said(
            Code::NoBinaryForGpu,
            Kind::Image,
            format!("the image is {name}; the virtual GPU runs PTX only: load the .ptx instead"),
        ));
    }
    let odd = |b: &u8| b.is_ascii_control() && !matches!(b, b'\n' | b'\r' | b'\t' | b'\x0c');
    let unknown = |why: String| Refusal::said(Code::InvalidImage, Kind::Image, why);
    let text = std::str::from_utf8(image)
        .map_err(|e| unknown(format!("the image is no text (byte {})", e.valid_up_to())))?;
    if let Some(i) = image.iter().position(odd) {
        return Err(unknown(format!("the image is no text (byte {i} is {:#04x})", image[i])));
    }
    if text.trim().is_empty() {
        return Err(unknown("the image is empty".into()));
    }
    Ok(text)
}

/// The PTX text at a pointer: zero-terminated, as the driver takes it.
///
/// # Errors
/// As [`text_of`]; a null pointer.
///
/// # Safety
/// `image` is null, or points to a zero-terminated text or to a binary image of at least four bytes.
pub unsafe fn text_at<'a>(image: *const u8) -> Result<&'a str, Refusal> {
    if image.is_null() {
        return Err(Refusal::said(Code::InvalidValue, Kind::Argument, "the image is a null pointer"));
    }
    let mut start = Vec::new();
    while start.len() < 4 {
        // SAFETY: the caller promises four bytes, or a zero before them, where this loop stops.
        match unsafe { *image.add(start.len()) } {
            0 => break,
            byte => start.push(byte),
        }
    }
    if binary_image(&start).is_some() {
        return Err(text_of(&start).expect_err("a binary image is no text"));
    }
    // SAFETY: no known binary image, so the caller promises a zero-terminated text.
    text_of(unsafe { std::ffi::CStr::from_ptr(image.cast()) }.to_bytes())
}

/// Decodes PTX and checks it against the driver and the device that the configuration names.
///
/// # Errors
/// PTX that is wrong, unknown, newer than the driver, or for a newer device.
pub fn load(text: &str, config: &Config) -> Result<ptx::Module, Refusal> {
    let module =
        ptx::Module::load(text).map_err(|e| Refusal::said(Code::InvalidPtx, Kind::Ptx, e.to_string()))?;
    let newest = config.newest_ptx();
    if module.version() > newest {
        let (major, minor) = module.version();
        return Err(Refusal::said(
            Code::UnsupportedPtxVersion,
            Kind::Ptx,
            format!(
                "PTX {major}.{minor} is newer than what a driver of CUDA {}.{} takes (PTX {}.{})",
                config.driver.0, config.driver.1, newest.0, newest.1
            ),
        ));
    }
    let device = config.props.capability.0 * 10 + config.props.capability.1;
    if module.target() > device {
        return Err(Refusal::said(
            Code::NoBinaryForGpu,
            Kind::Ptx,
            format!("the PTX is for sm_{}, the device is sm_{device}", module.target()),
        ));
    }
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(image: &[u8]) -> (Code, String) {
        match text_of(image) {
            Err(Refusal::Said(code, _, text)) => (code, text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn binary_images_are_refused_by_name() {
        assert!(refusal(b"\x7fELF\x02\x01").1.contains("cubin"));
        assert!(refusal(b"\x50\xed\x55\xba\x01\0").1.contains("fatbin"));
        assert_eq!(refusal(b"BC\xc0\xde").0, Code::NoBinaryForGpu);
        assert_eq!(refusal(b"\xff\xfe\x00").0, Code::InvalidImage);
        assert_eq!(refusal(b"ab\x01c").0, Code::InvalidImage);
        assert_eq!(refusal(b" \n").0, Code::InvalidImage);
        assert_eq!(text_of(b".version 8.0\n").unwrap(), ".version 8.0\n");
    }

    #[test]
    fn an_image_ends_at_its_zero() {
        let image = b"ab\0cd";
        // SAFETY: a zero-terminated text.
        assert_eq!(unsafe { text_at(image.as_ptr()) }.unwrap(), "ab");
        // SAFETY: a null pointer is allowed.
        assert!(unsafe { text_at(std::ptr::null()) }.is_err());
        // SAFETY: a binary image of four bytes.
        assert!(unsafe { text_at(b"\x7fELF".as_ptr()) }.is_err());
    }
}
