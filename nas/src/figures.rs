//! Numbers as people read them: one spelling for the terminal, the table and the report.

/// A count with thousands separated: `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A large count with three digits and a unit: `999`, `12.3 k`, `4.57 M`, `1.20 G`.
pub fn short(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "";
    for next in ["k", "M", "G", "T", "P", "E"] {
        // 999.5 would be written as 1000.
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    match unit {
        "" => n.to_string(),
        unit if value < 9.995 => format!("{value:.2} {unit}"),
        unit if value < 99.95 => format!("{value:.1} {unit}"),
        unit => format!("{value:.0} {unit}"),
    }
}

/// Digits after the point that the accuracy, in per cent, of so many images can carry.
pub fn percent_digits(images: u64) -> usize {
    if images > 1000 { 2 } else { 1 }
}

/// A share as per cent, without the sign: `0.874` is `87.4`; `–` if it is no number.
pub fn percent(share: f64, digits: usize) -> String {
    if share.is_finite() { format!("{:.digits$}", 100.0 * share) } else { "–".into() }
}

/// A value with about four digits, whatever its size; `–` if it is no number.
pub fn value(x: f64) -> String {
    if !x.is_finite() {
        return "–".into();
    }
    match x.abs() {
        0.0 => "0".into(),
        a if !(1e-3..1e5).contains(&a) => format!("{x:.2e}"),
        a if a < 0.1 => format!("{x:.4}"),
        a if a < 10.0 => format!("{x:.3}"),
        a if a < 100.0 => format!("{x:.2}"),
        a if a < 1000.0 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    }
}

/// A rate: two digits below ten, whole above; `–` if it is no number.
pub fn rate(x: f64) -> String {
    match x {
        x if !x.is_finite() || x < 0.0 => "–".into(),
        x if x < 9.95 => format!("{x:.1}"),
        x => count(x.round() as u64),
    }
}

/// Seconds: `0.8 s`, `42 s`, `3 m 05 s`, `2 h 07 m`, `3 d 04 h`; `–` if it is no number.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let s = seconds.round() as u64;
    match s {
        ..60 => format!("{s} s"),
        60..3600 => format!("{} m {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} m", s / 3600, s % 3600 / 60),
        _ => format!("{} d {:02} h", s / 86_400, s % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well_at_the_edges() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 999, 1000, 9_994, 12_345, 99_949, 999_499, 999_500, 4_567_890, u64::MAX].map(short),
            ["0", "999", "1.00 k", "9.99 k", "12.3 k", "99.9 k", "999 k", "1.00 M", "4.57 M", "18.4 E"]
        );
        assert_eq!(
            [0.0, 9.94, 9.96, 59.6, 185.0, 7620.0, 273_600.0, f64::NAN, f64::INFINITY].map(duration),
            ["0.0 s", "9.9 s", "10 s", "1 m 00 s", "3 m 05 s", "2 h 07 m", "3 d 04 h", "–", "–"]
        );
        assert_eq!(
            [0.0, 0.00012, 0.0123, 2.3456, 45.67, 123456.0].map(value),
            ["0", "1.20e-4", "0.0123", "2.346", "45.67", "1.23e5"]
        );
        assert_eq!([0.05, 812.4, f64::NAN].map(rate), ["0.1", "812", "–"]);
        assert_eq!((percent(0.8741, 1), percent(f64::NAN, 2)), ("87.4".into(), "–".into()));
    }
}
