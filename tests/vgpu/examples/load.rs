//! Decodes PTX files and says what is in them or why one is refused: `load FILE...`.

use monopath_vgpu::ptx::Module;

fn main() -> std::io::Result<()> {
    for path in std::env::args().skip(1) {
        match Module::load(&std::fs::read_to_string(&path)?) {
            Ok(m) => println!("{path}: {} kernels", m.kernels().len()),
            Err(e) => println!("{path}: {e}"),
        }
    }
    Ok(())
}
