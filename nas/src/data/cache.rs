//! A data set with all its images decoded in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Dataset, Description, Error, Image, Result, guard};

/// Decodes everything once. A record that cannot be decoded stays out and is read from the
/// original again, so that it fails in the same way each time and the loader's policy sees it.
pub struct Memory {
    inner: Arc<dyn Dataset>,
    images: Vec<Option<Image>>,
}

impl Memory {
    /// Decodes `inner` with `workers` threads.
    ///
    /// # Errors
    /// More than `limit_mib` MiB of pixels.
    pub fn new(inner: Arc<dyn Dataset>, workers: usize, limit_mib: u64) -> Result<Self> {
        let (next, held, full) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let limit = limit_mib.saturating_mul(1 << 20);
        let images = Mutex::new(vec![None; inner.len()]);
        std::thread::scope(|scope| {
            for _ in 0..workers.max(1) {
                scope.spawn(|| {
                    while !full.load(Ordering::Relaxed) {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= inner.len() {
                            break;
                        }
                        let mut image = Image::default();
                        if guard(&*inner, i, || inner.read(i, &mut image)).is_err() {
                            continue;
                        }
                        image.pixels.shrink_to_fit();
                        let size = image.pixels.len() as u64;
                        if held.fetch_add(size, Ordering::Relaxed) + size > limit {
                            full.store(true, Ordering::Relaxed);
                        }
                        images.lock().expect("nothing panics under this lock")[i] = Some(image);
                    }
                });
            }
        });
        if full.into_inner() {
            return Err(Error::Memory {
                path: inner.describe().paths.into_iter().next().unwrap_or_default(),
                needed: limit_mib + 1,
                limit: limit_mib,
                advice: "set `cache = \"none\"` or raise the limit",
            });
        }
        let images = images.into_inner().expect("nothing panics under this lock");
        Ok(Self { inner, images })
    }
}

impl Dataset for Memory {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn classes(&self) -> &[String] {
        self.inner.classes()
    }

    fn label(&self, i: usize) -> u32 {
        self.inner.label(i)
    }

    fn name(&self, i: usize) -> String {
        self.inner.name(i)
    }

    fn id(&self, i: usize) -> u64 {
        self.inner.id(i)
    }

    fn read(&self, i: usize, image: &mut Image) -> Result<()> {
        let Some(held) = &self.images[i] else { return self.inner.read(i, image) };
        image.reshape(held.height, held.width, held.channels);
        image.pixels.copy_from_slice(&held.pixels);
        image.repaired = held.repaired;
        Ok(())
    }

    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn is_decoded(&self) -> bool {
        true
    }
}
