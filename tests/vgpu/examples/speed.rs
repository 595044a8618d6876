//! Lane-instructions per second of processor time of one kernel: `speed PTX KERNEL H W C [fast]`.
//! The kernel takes (x, w, y, h, w, c) and one thread per pixel, 256 threads per block, channels in z.

use std::time::Instant;

use monopath_vgpu::exec::{self, Launch, Options};
use monopath_vgpu::memory::Origin;
use monopath_vgpu::ptx::Module;
use monopath_vgpu::{DeviceProps, Memory};

fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|s| s.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, path, name, h, w, c, rest @ ..] = args.as_slice() else {
        return Err("usage: speed PTX KERNEL H W C [fast]".into());
    };
    let (h, w, c): (u32, u32, u32) = (h.parse()?, w.parse()?, c.parse()?);
    let module = Module::load(&std::fs::read_to_string(path)?)?;
    let memory = Memory::new(1 << 30);
    module.place(&memory)?;
    let kernel = module.kernel(name).ok_or("no such kernel")?;
    let n = u64::from(h) * u64::from(w) * u64::from(c) * 4;
    let (x, k, y) = (
        memory.alloc(n, Origin::Malloc)?,
        memory.alloc(u64::from(c) * 36, Origin::Malloc)?,
        memory.alloc(n, Origin::Malloc)?,
    );
    memory.fill(x, &1f32.to_le_bytes(), n)?;
    memory.fill(k, &2f32.to_le_bytes(), u64::from(c) * 36)?;
    let mut params = Vec::new();
    [x, k, y].iter().for_each(|p| params.extend(p.to_le_bytes()));
    [h, w, c].iter().for_each(|p| params.extend(p.to_le_bytes()));
    let launch = Launch {
        grid: [(h * w).div_ceil(256), 1, c],
        block: [256, 1, 1],
        dynamic_shared: 0,
        params: &params,
        dynamic_shared_optin: 0,
        cooperative: false,
        seed: 0,
    };
    let options = Options { checks: rest.is_empty(), threads: 1, ..Options::default() };
    for _ in 0..5 {
        let (wall, cpu) = (Instant::now(), processor_seconds());
        let counters = exec::launch(kernel, &launch, &memory, &DeviceProps::default(), &options)?;
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), processor_seconds() - cpu);
        let lanes = counters.executed().lane as f64 / 1e6;
        println!(
            "{lanes:.1} M lane-instructions, {:.0} M/s of processor, {:.0} M/s of wall",
            lanes / cpu,
            lanes / wall
        );
    }
    Ok(())
}
