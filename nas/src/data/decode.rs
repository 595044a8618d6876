//! JPEG and PNG bytes to pixels. The format is told by the content, never by a file's name.
//!
//! A file that decodes is either whole or refused: JPEG is read strictly, since a lenient decoder
//! fills the missing half of a truncated file with gray and calls it success. Even a strict one does
//! not miss the last band of blocks, so the end marker must be there, too. The one thing strict
//! decoding refuses without need, junk between header segments, is cut out and the rest read
//! strictly; [`Image::repaired`] tells. JPEG has no checksum, so a flipped bit may pass unseen; only
//! the packed format notices that.
//!
//! - Gray stays one channel; CMYK and YCCK become RGB; 16-bit samples keep their high byte; palettes
//!   are looked up; transparency is dropped (the colour below it stays).
//! - EXIF orientation is ignored, as in every ImageNet pipeline: labels and published accuracies
//!   belong to the pixels as stored.
//! - No more than [`MAX_PIXELS`] pixels, and no more than the file's length can describe.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors as JpegError;

use super::{DecodeError, Image};

/// Most pixels of one image: 64 Mi. ImageNet's largest has 16 million.
pub const MAX_PIXELS: usize = 1 << 26;

/// The longest side that JPEG can express.
const MAX_SIDE: usize = 65_535;

type Result<T> = std::result::Result<T, DecodeError>;

/// Decodes `bytes` into `image`, whose memory is reused.
///
/// # Errors
/// Empty, unknown, damaged, or too large; `image` then holds nothing of use. A panic of a decoder,
/// other people's code fed with untrusted bytes, is an error as well.
pub fn decode(bytes: &[u8], image: &mut Image) -> Result<()> {
    let attempt = AssertUnwindSafe(|| match bytes {
        [] => Err(DecodeError::Empty),
        [0xFF, 0xD8, ..] => jpeg(bytes, image),
        [0x89, b'P', b'N', b'G', ..] => png(bytes, image),
        _ => Err(DecodeError::UnknownFormat(bytes[..bytes.len().min(8)].to_vec())),
    });
    catch_unwind(attempt).unwrap_or(Err(DecodeError::Panicked))
}

fn jpeg(bytes: &[u8], image: &mut Image) -> Result<()> {
    match jpeg_strict(bytes, image) {
        Err(DecodeError::Jpeg(JpegError::FormatStatic(text))) if text.contains("between headers") => {
            jpeg_strict(&without_junk(bytes), image)?;
            image.repaired = true;
            Ok(())
        }
        other => other,
    }
}

fn jpeg_strict(bytes: &[u8], image: &mut Image) -> Result<()> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    decoder.decode_headers().map_err(DecodeError::Jpeg)?;
    let (info, space) = decoder.info().zip(decoder.input_colorspace()).expect("headers were read");
    let channels = match space {
        ColorSpace::Luma => 1,
        ColorSpace::RGB | ColorSpace::YCbCr | ColorSpace::CMYK | ColorSpace::YCCK => 3,
        _ => return Err(DecodeError::Channels(space.num_components())),
    };
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    // A block of 8 x 8 pixels takes at least one bit.
    check_size(width, height, bytes.len(), 512)?;
    if channels == 1 {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    image.reshape(height, width, channels);
    decoder.decode_into(&mut image.pixels).map_err(DecodeError::Jpeg)?;
    // Within coded data 0xFF is always stuffed, so this pair is a marker wherever it stands; before
    // the scan it may belong to a thumbnail.
    let scan = segments(bytes).last().map_or(0, |segment| segment.start);
    match bytes[scan..].windows(2).rposition(|pair| pair == [0xFF, 0xD9]) {
        Some(_) => Ok(()),
        None => Err(DecodeError::NoEnd),
    }
}

/// The file with only whole segments before its scan.
fn without_junk(bytes: &[u8]) -> Vec<u8> {
    let mut clean = bytes[..2].to_vec();
    segments(bytes).for_each(|segment| clean.extend_from_slice(&bytes[segment]));
    clean
}

/// Segments of the header, marker included; the last one begins with the scan and takes the rest.
fn segments(bytes: &[u8]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 2;
    std::iter::from_fn(move || {
        let marker = |i: usize| bytes[i] == 0xFF && (0xC0..=0xFE).contains(&bytes[i + 1]);
        let start = (at..bytes.len().saturating_sub(3)).find(|&i| marker(i))?;
        let length = usize::from(u16::from_be_bytes([bytes[start + 2], bytes[start + 3]]));
        let end = if bytes[start + 1] == 0xDA { bytes.len() } else { start + 2 + length };
        at = end;
        (end <= bytes.len()).then_some(start..end)
    })
}

fn png(bytes: &[u8], image: &mut Image) -> Result<()> {
    let limits = png::Limits { bytes: 4 * MAX_PIXELS };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(DecodeError::Png)?;
    let (width, height) = (header.width as usize, header.height as usize);
    // Deflate expands at most 1032-fold, and a byte holds at most 8 pixels.
    check_size(width, height, bytes.len(), 8 * 1032)?;
    let mut reader = decoder.read_info().map_err(DecodeError::Png)?;
    // png 0.18.1 panics at a palette that ends within an entry (image-png issue 694).
    if let Some(palette) = reader.info().palette.as_ref().filter(|palette| palette.len() % 3 != 0) {
        return Err(DecodeError::Palette(palette.len()));
    }
    let channels = reader.output_color_type().0.samples();
    image.reshape(height, width, channels);
    reader.next_frame(&mut image.pixels).map_err(DecodeError::Png)?;
    // Reads on to the end, so that a file cut off after its last row is noticed too.
    reader.finish().map_err(DecodeError::Png)?;
    if channels == 2 || channels == 4 {
        drop_alpha(image, channels);
    }
    Ok(())
}

/// Keeps the first `channels - 1` samples of each pixel.
fn drop_alpha(image: &mut Image, channels: usize) {
    let kept = channels - 1;
    for i in 0..image.height * image.width {
        image.pixels.copy_within(i * channels..i * channels + kept, i * kept);
    }
    image.reshape(image.height, image.width, kept);
}

/// Refuses what would need more memory than a picture, or than a file of `bytes` bytes, can need.
fn check_size(width: usize, height: usize, bytes: usize, pixels_per_byte: usize) -> Result<()> {
    let pixels = width.saturating_mul(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height, limit: MAX_PIXELS });
    }
    if pixels > bytes.saturating_mul(pixels_per_byte) {
        return Err(DecodeError::Bomb { width, height, bytes });
    }
    Ok(())
}
