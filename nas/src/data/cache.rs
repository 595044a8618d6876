//! A data set with its images decoded in memory.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Dataset, Description, Error, Image, Result, View, guard};

/// Decodes records once. One that cannot be decoded stays out and is read from the original again,
/// so that it fails in the same way each time and the loader's policy sees it.
pub struct Memory {
    inner: Arc<dyn Dataset>,
    images: Vec<Option<Image>>,
}

impl Memory {
    /// Decodes the records of `view` with `workers` threads; the others are read when asked for.
    ///
    /// # Errors
    /// More than `limit_mib` MiB of pixels.
    pub fn new(view: &View, workers: usize, limit_mib: u64) -> Result<Self> {
        let inner = view.dataset.clone();
        let (next, held, full) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let limit = limit_mib.saturating_mul(1 << 20);
        let images = Mutex::new(vec![None; inner.len()]);
        std::thread::scope(|scope| {
            for _ in 0..workers.max(1) {
                scope.spawn(|| {
                    while !full.load(Ordering::Relaxed) {
                        let position = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&i) = view.indices.get(position) else { break };
                        let i = i as usize;
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

    fn encoded(&self, i: usize) -> Result<Option<Vec<u8>>> {
        self.inner.encoded(i)
    }

    fn describe(&self) -> Description {
        self.inner.describe()
    }

    fn is_decoded(&self) -> bool {
        true
    }
}
