//! The found network drawn: one box a layer, as wide as its channels are many.
//!
//! A layer that halves the plane is a funnel; a slot that passes its input on is dashed.

use std::fmt::Write;

use super::markup::{escape, shorten};

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A layer that every network of the space has.
    Fixed,
    /// The candidate that was chosen for a slot.
    Chosen,
    /// A slot whose candidate passes its input on.
    Skip,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Where: `stem.0`, `stage2.slot1`.
    pub name: String,
    /// What: `mb_k5_e6`.
    pub label: String,
    /// Which kind of box.
    pub kind: Kind,
    /// Output channels.
    pub channels: usize,
    /// Side of the output plane; 0 where the plane is gone.
    pub size: usize,
}

/// A network from input to output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// Channels of the images.
    pub channels: usize,
    /// Side of the images.
    pub size: usize,
    /// The layers in order.
    pub layers: Vec<Layer>,
}

const WIDTH: f64 = 380.0;
const NAMES: f64 = 92.0;
const BOXES: f64 = 190.0;
const ROW: f64 = 32.0;
const BOX: f64 = 24.0;

fn shape(size: usize, channels: usize) -> String {
    if size == 0 { format!("{channels}") } else { format!("{size}×{size}×{channels}") }
}

impl Drawing {
    /// The drawing as an `svg` element.
    pub fn svg(&self) -> String {
        let most = self.layers.iter().map(|l| l.channels).max().unwrap_or(1).max(1) as f64;
        let height = ROW * (self.layers.len() + 1) as f64 + 4.0;
        let middle = NAMES + BOXES / 2.0;
        let about = format!(
            "The found network, {} layers from {} images to {} outputs: {}",
            self.layers.len(),
            shape(self.size, self.channels),
            self.layers.last().map_or(self.channels, |l| l.channels),
            self.layers.iter().map(|l| l.label.as_str()).collect::<Vec<_>>().join(", ")
        );
        let mut out = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="network" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{0}"><title>{0}</title>"#,
            escape(&about)
        );
        let mut put =
            |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("writing to a string cannot fail");
        put(format_args!(
            r#"<text class="box-label" x="{middle}" y="19" text-anchor="middle">images</text><text class="shape" x="{}" y="19" text-anchor="end">{}</text>"#,
            WIDTH - 2.0,
            shape(self.size, self.channels)
        ));
        let mut before = self.size;
        for (i, layer) in self.layers.iter().enumerate() {
            let top = ROW * (i + 1) as f64 + 4.0;
            let (bottom, baseline) = (top + BOX, top + 16.0);
            // The square root keeps narrow layers wide enough for their labels.
            let half = (BOXES / 2.0 * (layer.channels as f64 / most).sqrt()).max(46.0);
            let smaller = layer.size != 0 && layer.size < before;
            before = layer.size;
            let (kind, slope) = match (layer.kind, smaller) {
                (Kind::Skip, _) => ("skip", 0.0),
                (Kind::Fixed, smaller) => ("fixed", if smaller { 12.0 } else { 0.0 }),
                (Kind::Chosen, smaller) => ("chosen", if smaller { 12.0 } else { 0.0 }),
            };
            let (l, r) = (middle - half, middle + half);
            put(format_args!(
                r#"<g><title>{}: {}, output {}</title><path class="wire" d="M{middle} {:.1}V{top:.1}"/><path class="box {kind}" d="M{l:.1} {top:.1}H{r:.1}L{:.1} {bottom:.1}H{:.1}Z"/>"#,
                escape(&layer.name),
                escape(&layer.label),
                shape(layer.size, layer.channels),
                top - (ROW - BOX),
                r - slope,
                l + slope
            ));
            put(format_args!(
                r#"<text class="shape" x="2" y="{baseline:.1}">{}</text><text class="box-label" x="{middle}" y="{baseline:.1}" text-anchor="middle">{}</text><text class="shape" x="{}" y="{baseline:.1}" text-anchor="end">{}</text></g>"#,
                escape(&shorten(&layer.name, 14)),
                // About 7 units a character.
                escape(&shorten(&layer.label, ((half - slope) / 3.6) as usize)),
                WIDTH - 2.0,
                shape(layer.size, layer.channels)
            ));
        }
        out += "</svg>";
        out
    }
}
