//! The section about how well scores order trained networks.

use super::chart::{Along, Chart, Mark};
use super::figure;
use super::markup::escape;
use crate::figures::count;
use crate::rank::{Metric, Ranking};

/// The section, or nothing if nothing was ranked.
pub fn section(rankings: &[Ranking]) -> String {
    if rankings.is_empty() {
        return String::new();
    }
    let (mut rows, mut charts) = (String::new(), String::new());
    let figures = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.3}"));
    for ranking in rankings {
        let interval = ranking.interval_95.map_or("–".into(), |[a, b]| format!("{a:.3} to {b:.3}"));
        rows += &format!(r#"<tr><th scope="row">{}</th>"#, ranking.metric.name());
        let cells = [
            count(ranking.n as u64),
            figures(ranking.tau_b),
            interval,
            figures(ranking.spearman),
            figures(ranking.p_at_10),
            figures(ranking.p_at_50),
            figures(ranking.macs_tau_b),
            figures(ranking.params_tau_b),
            figures(ranking.ceiling),
        ];
        cells.iter().for_each(|cell| rows += &format!("<td>{}</td>", escape(cell)));
        rows += "</tr>";
        charts += &scatter(ranking);
    }
    format!(
        r#"<section><h2>Ranking</h2><p class="note">Scores beside the accuracies of networks that were each trained by itself. A score whose tau lies below that of counting multiply-adds says less than the count.</p><div class="scroll"><table><caption>Kendall's tau-b with its 95 % interval, Spearman's rho, the share of the best 10 and 50 that the score finds; then the tau-b of multiply-adds and of parameters on the same networks, and the most that the noise of training allows.</caption><thead><tr><th scope="col">score</th><th scope="col">networks</th><th scope="col">tau-b</th><th scope="col">95 %</th><th scope="col">rho</th><th scope="col">best 10</th><th scope="col">best 50</th><th scope="col">MACs</th><th scope="col">params</th><th scope="col">ceiling</th></tr></thead><tbody>{rows}</tbody></table></div><div class="pair">{charts}</div></section>
"#
    )
}

fn scatter(ranking: &Ranking) -> String {
    let (scale, label) = match ranking.metric {
        Metric::Accuracy => (100.0, "held-out accuracy with shared weights, %"),
        Metric::Angle => (1.0, "angle, radians"),
        Metric::Macs => (1e-6, "multiply-adds, millions"),
        Metric::Params => (1e-6, "parameters, millions"),
        Metric::Synflow => (1.0, "synflow, natural logarithm"),
        Metric::GradientNorm => (1.0, "norm of the gradient"),
        Metric::JacobianCovariance => (1.0, "covariance of Jacobians"),
    };
    let title = format!("{} networks", count(ranking.points.len() as u64));
    let points = ranking.points.iter().map(|p| [scale * p.score, p.truth]).collect();
    let about = format!(
        "Accuracy of trained networks against their {}. Tau-b {}",
        ranking.metric.name(),
        ranking.tau_b.map_or("is not defined".into(), |tau| format!("{tau:.3}"))
    );
    let marks = vec![Mark::Dots { class: "cloud", title, points }];
    figure(
        ranking.metric.name(),
        &Chart { about: &about, x: Along::Range(label), y: "trained accuracy, %", marks },
    )
}
