//! Changes of colour on 8-bit pixels, bit for bit those of Pillow's `ImageEnhance`.

use engine::rng::Draws;

use super::config::Jitter;

/// Pillow's conversion to "L": ITU-R 601-2 in 16-bit fixed point, rounded.
pub(super) fn gray(rgb: &[u8]) -> u8 {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
    ((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16) as u8
}

/// torchvision's `ColorJitter` without hue.
pub(super) fn jitter_colours(pixels: &mut [u8], c: usize, jitter: &Jitter, draws: &mut Draws) {
    // Factors are drawn in one order and applied in another, as torchvision does.
    let steps = random_order(draws);
    let factor = |x: f32, draws: &mut Draws| draws.range((1.0 - x).max(0.0), 1.0 + x);
    let [brightness, contrast, saturation] =
        [jitter.brightness, jitter.contrast, jitter.saturation].map(|x| factor(x, draws));
    for step in steps {
        match step {
            0 if jitter.brightness > 0.0 => apply_brightness(pixels, brightness),
            1 if jitter.contrast > 0.0 => apply_contrast(pixels, c, contrast),
            2 if jitter.saturation > 0.0 => apply_saturation(pixels, c, saturation),
            _ => {}
        }
    }
}

fn random_order(draws: &mut Draws) -> [usize; 3] {
    let mut order = [0, 1, 2];
    for i in [2, 1] {
        order.swap(i, draws.below(i as u32 + 1) as usize);
    }
    order
}

/// Pillow's blend: `base + factor * (value - base)`, cut to 0..255, rounded towards zero.
fn blend(base: u8, value: u8, factor: f32) -> u8 {
    let base = f32::from(base);
    // A cast to u8 saturates and truncates, which is what Pillow does by hand.
    (base + factor * (f32::from(value) - base)) as u8
}

fn apply_brightness(pixels: &mut [u8], factor: f32) {
    let table: [u8; 256] = std::array::from_fn(|v| blend(0, v as u8, factor));
    pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

fn apply_contrast(pixels: &mut [u8], c: usize, factor: f32) {
    let sum: u64 = if c == 3 {
        pixels.chunks_exact(3).map(|rgb| u64::from(gray(rgb))).sum()
    } else {
        pixels.iter().map(|&v| u64::from(v)).sum()
    };
    let mean = (sum as f64 / (pixels.len() / c) as f64 + 0.5) as u8;
    let table: [u8; 256] = std::array::from_fn(|v| blend(mean, v as u8, factor));
    pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
}

fn apply_saturation(pixels: &mut [u8], c: usize, factor: f32) {
    if c == 3 {
        for rgb in pixels.chunks_exact_mut(3) {
            let base = gray(rgb);
            rgb.iter_mut().for_each(|v| *v = blend(base, *v, factor));
        }
    }
}

#[cfg(test)]
mod tests {
    use engine::Rng;

    use super::*;
    use crate::data::Image;
    use crate::data::decode::decode;

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/data/images/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut image = Image::default();
        decode(&std::fs::read(&path).unwrap(), &mut image).unwrap();
        image.pixels
    }

    #[test]
    fn colours_change_as_in_pillow() {
        type Change = fn(&mut [u8], f32);
        let kinds: [(&str, Change); 3] = [
            ("brightness", apply_brightness),
            ("contrast", |p, f| apply_contrast(p, 3, f)),
            ("saturation", |p, f| apply_saturation(p, 3, f)),
        ];
        for (name, change) in kinds {
            for factor in [0.6, 1.4] {
                let mut changed = fixture("source.png");
                change(&mut changed, factor);
                let expected = fixture(&format!("{name}-{factor}.png"));
                assert!(changed == expected, "{name} {factor}");
            }
        }
    }

    #[test]
    fn a_pixel_changes_as_computed_by_hand() {
        // gray = (19595 * 100 + 38470 * 150 + 7471 * 200 + 32768) >> 16 = 141
        assert_eq!(gray(&[100, 150, 200]), 141);
        let mut rgb = [100, 150, 200];
        apply_saturation(&mut rgb, 3, 1.4);
        assert_eq!(rgb, [83, 153, 223]);
        let mut two = [10, 201];
        apply_contrast(&mut two, 1, 0.5); // mean 105.5 + 0.5 -> 106
        assert_eq!(two, [58, 153]);
        apply_brightness(&mut two, 2.0);
        assert_eq!(two, [116, 255]);
    }

    #[test]
    fn the_six_orders_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for i in 0..6000 {
            let order = random_order(&mut Rng::new(0, "augment").at(0, 0, i));
            *counts.entry(order).or_insert(0) += 1;
        }
        // Five standard deviations of 1,000 are 145.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|n| (855..=1145).contains(n)), "{counts:?}");
    }

    #[test]
    fn the_same_draws_give_the_same_colours() {
        let colours = |i: u32| {
            let mut pixels = vec![10, 60, 110, 160, 210, 40];
            let all = Jitter { brightness: 0.5, contrast: 0.5, saturation: 0.5 };
            jitter_colours(&mut pixels, 3, &all, &mut Rng::new(0, "augment").at(0, 0, i));
            pixels
        };
        assert_eq!(colours(3), colours(3));
        assert_ne!(colours(3), colours(4));
    }
}
