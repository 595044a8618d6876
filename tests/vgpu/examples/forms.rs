//! Prints the table of PTX forms as `docs/vgpu.md` holds it.

fn main() {
    print!("{}", monopath_vgpu::ptx::forms_markdown());
}
