//! How a block's tensors lie and how its work is cut: by shape alone.
//!
//! A wide tensor is `[group][channel / 16][image of the group][pixel][16]`. Planes of fewer than 75
//! output pixels share a group, so that a panel of rows is long enough for the products.

use std::ops::Range;

use super::strip::BLOCK;

/// Rows of a panel, about.
const PANEL: usize = 112;
/// Bytes of a scratch plane, at most where a row allows.
const PLANE: usize = 96 << 10;

/// The sizes of one inverted residual block.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Images.
    pub n: usize,
    /// Input rows and columns.
    pub from: [usize; 2],
    /// Output rows and columns.
    pub to: [usize; 2],
    /// Input channels.
    pub c: usize,
    /// Expanded channels.
    pub e: usize,
    /// Output channels.
    pub o: usize,
    /// Side of the depthwise filter.
    pub k: usize,
    /// 1 or 2.
    pub stride: usize,
}

/// A cut of the rows of all groups.
#[derive(Clone, Copy)]
pub struct Panels {
    plan: Plan,
    pixels: usize,
    per_group: usize,
}

/// One panel.
#[derive(Clone)]
pub struct Panel {
    /// Its group.
    pub group: usize,
    /// Its rows, counted within the group.
    pub rows: Range<usize>,
    /// The first row, counted over all groups.
    pub first: usize,
}

impl Plan {
    /// Pixels of an input plane.
    pub fn pixels_from(&self) -> usize {
        self.from[0] * self.from[1]
    }

    /// Pixels of an output plane.
    pub fn pixels_to(&self) -> usize {
        self.to[0] * self.to[1]
    }

    /// Channel blocks of the wide tensors.
    pub fn blocks(&self) -> usize {
        self.e.div_ceil(BLOCK)
    }

    /// Channels of the wide tensors, tail included.
    pub fn wide(&self) -> usize {
        self.blocks() * BLOCK
    }

    /// Images that share a group.
    pub fn group(&self) -> usize {
        let q = self.pixels_to();
        if q < 75 { ((PANEL + q / 2) / q).min(self.n) } else { 1 }
    }

    /// Groups.
    pub fn groups(&self) -> usize {
        self.n.div_ceil(self.group())
    }

    /// Images of a group; the last may have fewer.
    pub fn images(&self, group: usize) -> usize {
        self.group().min(self.n - group * self.group())
    }

    /// Where the strip of a group and block lies in a wide tensor of `pixels` a plane.
    pub fn strip(&self, group: usize, block: usize, pixels: usize) -> Range<usize> {
        let len = self.images(group) * pixels * BLOCK;
        let start = group * self.group() * pixels * self.wide() + block * len;
        start..start + len
    }

    /// Where the plane of an image and block lies.
    pub fn plane(&self, image: usize, block: usize, pixels: usize) -> Range<usize> {
        let group = image / self.group();
        let start = self.strip(group, block, pixels).start + image % self.group() * pixels * BLOCK;
        start..start + pixels * BLOCK
    }

    /// The image and the block of the plane that is the `index`-th in memory.
    pub fn nth_plane(&self, index: usize) -> (usize, usize) {
        let whole = self.group() * self.blocks();
        let (group, rest) = (index / whole, index % whole);
        let images = self.images(group);
        (group * self.group() + rest % images, rest / images)
    }

    /// Panels of the tensors of the input's size.
    pub fn panels_from(&self) -> Panels {
        let rows = self.group() * self.pixels_from();
        let per_group = ((rows + PANEL / 2) / PANEL).clamp(1, self.pixels_from());
        Panels { plan: *self, pixels: self.pixels_from(), per_group }
    }

    /// Panels of the tensors of the output's size. A panel holds rows of one image, or a whole group.
    pub fn panels_to(&self) -> Panels {
        let rows = self.pixels_to();
        let per_group = if self.group() > 1 { 1 } else { ((rows + PANEL / 2) / PANEL).max(1) };
        Panels { plan: *self, pixels: rows, per_group }
    }

    /// How many partial sums a filter gradient of `elements` is cut into.
    pub fn parts(&self, panels: Panels, elements: usize) -> usize {
        panels.count().min(if elements > 100_000 { 4 } else { 8 })
    }

    /// The output rows of each band of a plane: what a window reads of a band fits a cache.
    pub fn bands(&self) -> usize {
        let row = (self.from[1] + self.k) * BLOCK * size_of::<f32>();
        let rows = (PLANE / row).saturating_sub(self.k).max(2 * self.stride) / self.stride;
        self.to[0].div_ceil(rows.max(1))
    }

    /// Output rows of band `band`.
    pub fn band(&self, band: usize) -> Range<usize> {
        let (h, bands) = (self.to[0], self.bands());
        h * band / bands..h * (band + 1) / bands
    }

    /// Zeros around the input.
    pub fn pad(&self) -> usize {
        self.k / 2
    }

    /// Columns of the padded input.
    pub fn columns(&self) -> usize {
        // With stride 2 and an even width no window reaches the last column.
        spread(self.from[1] + 2 * self.pad())
    }

    /// Columns of the padded gradient of the output.
    pub fn columns_to(&self) -> usize {
        spread(self.to[1] + 2 * self.halo())
    }

    /// Most rows of a band's padded input.
    pub fn rows(&self) -> usize {
        (self.to[0].div_ceil(self.bands()) - 1) * self.stride + self.k
    }

    /// Zeros or neighbours around a band of the output's gradient.
    pub fn halo(&self) -> usize {
        self.pad().div_ceil(self.stride)
    }
}

/// Rows of 2 KiB or its multiples would share few places of the first cache.
fn spread(columns: usize) -> usize {
    columns + usize::from(columns.is_multiple_of(32))
}

impl Panels {
    /// All panels.
    pub fn count(&self) -> usize {
        self.plan.groups() * self.per_group
    }

    /// Panels of a group.
    pub fn per_group(&self) -> usize {
        self.per_group
    }

    /// Most rows of a panel.
    pub fn longest(&self) -> usize {
        (self.plan.group() * self.pixels).div_ceil(self.per_group)
    }

    /// Panel `index`.
    pub fn at(&self, index: usize) -> Panel {
        let (group, part) = (index / self.per_group, index % self.per_group);
        let rows = self.plan.images(group) * self.pixels;
        let rows = rows * part / self.per_group..rows * (part + 1) / self.per_group;
        Panel { group, first: group * self.plan.group() * self.pixels + rows.start, rows }
    }

    /// The rows of a panel in a wide tensor.
    pub fn strip(&self, panel: &Panel, block: usize) -> Range<usize> {
        let start = self.plan.strip(panel.group, block, self.pixels).start;
        start + panel.rows.start * BLOCK..start + panel.rows.end * BLOCK
    }

    /// Where the strip of the block `step` blocks after this one begins; after the last block, that of
    /// the next panel's first. For a prefetch: the end if there is none.
    pub fn after(&self, index: usize, block: usize, step: usize) -> usize {
        if block + step < self.plan.blocks() {
            self.strip(&self.at(index), block + step).start
        } else if index + 1 < self.count() {
            self.strip(&self.at(index + 1), 0).start
        } else {
            self.strip(&self.at(index), block).end
        }
    }

    /// The rows of a panel in an NHWC tensor of `c` channels.
    pub fn nhwc(&self, panel: &Panel, c: usize) -> Range<usize> {
        panel.first * c..(panel.first + panel.rows.len()) * c
    }

    /// A share of the next panel's rows in an NHWC tensor of `c` channels, for a prefetch: where it
    /// begins, and its cache lines.
    pub fn share_after(&self, panel: &Panel, c: usize, share: usize, shares: usize) -> (usize, usize) {
        let lines = (panel.rows.len() * c).div_ceil(BLOCK * shares);
        ((panel.first + panel.rows.len()) * c + share * lines * BLOCK, lines)
    }

    /// The images of a panel and their rows within it.
    pub fn images(&self, panel: &Panel) -> impl Iterator<Item = (usize, Range<usize>)> {
        let (pixels, rows, first) = (self.pixels, panel.rows.clone(), panel.group * self.plan.group());
        (rows.start / pixels..rows.end.div_ceil(pixels)).map(move |image| {
            let from = (image * pixels).max(rows.start) - rows.start;
            let to = ((image + 1) * pixels).min(rows.end) - rows.start;
            (first + image, from..to)
        })
    }
}
