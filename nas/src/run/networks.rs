//! The stages that retrain networks from scratch and test them: the found one, random ones under
//! the same constraint, and the largest.

use std::path::Path;

use engine::{ParamStore, Place, Rng};
use serde::{Deserialize, Serialize};

use super::Run;
use super::search::{arch_json, scored_batches, share};
use crate::arch::Arch;
use crate::calibrate::Calibration;
use crate::checkpoint::Archive;
use crate::data::{Batch, Loader, Pass, Pipeline};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::event::{Event, Stage};
use crate::files;
use crate::groups::PathImages;
use crate::memory::{NormsBy, Scoring};
use crate::model::{Context, Model, NormParams, Norms, Statistics};
use crate::outcome::{Network, Outcome, RandomNetworks};
use crate::rank::Tested;
use crate::space::Space;
use crate::train::{self, Job, Session};

/// A trained network that stands alone: space of one path, architecture, weights, statistics.
pub struct Snapshot {
    /// The space it was found in, with the input and the classes it was trained on.
    pub space: Space,
    /// The architecture.
    pub arch: Arch,
    /// The model over `space.only(arch)`.
    pub model: Model,
    /// Its weights.
    pub store: ParamStore,
    /// Its batch-norm statistics.
    pub statistics: Statistics,
    /// Names of the classes.
    pub classes: Vec<String>,
    seconds: f64,
    events: u64,
}

/// What a snapshot file says of itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Meta {
    space: String,
    arch: String,
    classes: Vec<String>,
    seconds: f64,
    events: u64,
}

impl Snapshot {
    /// As a file.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn to_archive(&self) -> Result<Archive> {
        let meta = Meta {
            space: self.space.to_toml()?,
            arch: self.space.text(&self.arch),
            classes: self.classes.clone(),
            seconds: self.seconds,
            events: self.events,
        };
        let mut archive = Archive::new(&meta)?;
        self.model.save_weights(&self.store, &mut archive)?;
        self.model.save_statistics(&self.statistics, &mut archive)?;
        Ok(archive)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] if it is none.
    pub fn load(path: &Path, device: &impl Place) -> Result<Self> {
        let archive = Archive::from_bytes(&files::read(path)?, path)?;
        let meta: Meta = archive.meta(path)?;
        let space = Space::parse_toml(&meta.space, path)?;
        let arch = space.parse(&meta.arch)?;
        let model = Model::new(&space.only(&arch)?, NormParams::Affine)?;
        if meta.classes.len() != space.classes() {
            return Err(Error::Format {
                path: path.to_owned(),
                reason: "classes and their names disagree".into(),
            });
        }
        let mut store = model.init(device, &Rng::new(0, "init"))?;
        model.load_weights(&mut store, &archive, path)?;
        let mut statistics = model.fresh_statistics(device)?;
        model.load_statistics(&mut statistics, device, &archive, path)?;
        let Meta { classes, seconds, events, .. } = meta;
        Ok(Self { space, arch, model, store, statistics, classes, seconds, events })
    }
}

impl Snapshot {
    /// The likeliest `n` classes of the first image of a batch `[1, h, w, c]`, with probabilities.
    ///
    /// # Errors
    /// What the engine returns.
    pub fn guesses(&self, x: &engine::Tensor, n: usize) -> Result<Vec<(String, f64)>> {
        let arch = self.model.space().first();
        let logits = evaluate::infer(&self.model, &self.store, &self.statistics, &arch, x)?;
        let logits = logits.to_host::<f32>()?;
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&v| f64::from(v - max).exp()).sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let guess = |i: usize| (self.classes[i].clone(), f64::from(logits[i] - max).exp() / sum);
        Ok(order.into_iter().take(n).map(guess).collect())
    }
}

/// Retrains and tests every network; `only_train` leaves the testing out.
pub(crate) fn retrain(run: &mut Run<'_>, found: &(Arch, f64), only_train: bool) -> Result<Option<Outcome>> {
    let subjects = subjects(run, &found.0)?;
    for (subject, arch) in &subjects {
        retrain_one(run, subject, arch)?;
    }
    if only_train {
        return Ok(None);
    }
    let mut networks = Vec::with_capacity(subjects.len());
    for (subject, _) in &subjects {
        networks.push(test(run, subject)?);
    }
    let outcome = summarise(run, networks, found.1)?;
    let path = run.dir.result();
    let text = serde_json::to_string_pretty(&outcome)
        .map_err(|e| Error::Format { path: path.clone(), reason: e.to_string() })?;
    files::write_atomic(&path, text.as_bytes())?;
    let best = run.dir.network("found").join("model.safetensors");
    files::write_atomic(&run.dir.model(), &files::read(&best)?)?;
    Ok(Some(outcome))
}

/// Which networks are retrained, by name.
fn subjects(run: &Run<'_>, found: &Arch) -> Result<Vec<(String, Arch)>> {
    let config = &run.recipe.retrain;
    let mut subjects = vec![("found".to_owned(), found.clone())];
    let random = run.domain("random-networks").distinct(config.random_networks, "retrain")?;
    subjects.extend(random.into_iter().enumerate().map(|(i, arch)| (format!("random-{i}"), arch)));
    if config.largest {
        subjects.push(("largest".to_owned(), run.space.largest()));
    }
    Ok(subjects)
}

fn retrain_one(run: &mut Run<'_>, subject: &str, arch: &Arch) -> Result<()> {
    let folder = run.dir.network(subject);
    let path = folder.join("model.safetensors");
    if path.exists() {
        let meta: Meta = Archive::from_bytes(&files::read(&path)?, &path)?.meta(&path)?;
        run.journal.vouch(meta.events);
        return Ok(());
    }
    let space = run.space.clone();
    let single = space.only(arch)?;
    let only_path = single.first();
    let model = Model::new(&single, NormParams::Affine)?;
    let Run { recipe, data, device, stop, checkpoints, journal, .. } = run;
    // The same seed for every network: they differ in architecture alone.
    let job = Job {
        stage: Stage::Retrain,
        subject,
        model: &model,
        paths: &|_| vec![only_path.clone()],
        path_images: PathImages::Slices,
        at_once: 1,
        config: &recipe.retrain.train,
        log: &recipe.log,
        images: &data.train,
        seed: recipe.seed,
        running_statistics: true,
        gates: None,
        stop,
    };
    let mut session = Session::resume(&job, device, checkpoints, journal)?;
    let batch = recipe.retrain.train.batch;
    let loader = |seed| -> Result<Loader> {
        Ok(Loader::new(
            data.train.clone(),
            Pipeline::new(&recipe.data.augment, &recipe.data.normalise)?,
            Pass::Train,
            seed,
            recipe.data.loader(batch),
        )?)
    };
    let mut batches = loader(recipe.seed)?;
    train::train(&job, &mut session, &mut batches, checkpoints, journal)?;
    // SPOS section 7: one more pass at rate 0 whose statistics are averaged over all its batches.
    // It is the epoch after the last, so it is another augmentation of the same images.
    batches.seek(recipe.retrain.train.epochs as u32, 0);
    let statistics = cumulative(&model, &session, &mut batches, recipe.retrain.train.bn_batch(), &only_path)?;
    let snapshot = Snapshot {
        space,
        arch: arch.clone(),
        model,
        store: session.store,
        statistics,
        classes: data.train.dataset.classes().to_vec(),
        seconds: session.seconds,
        events: journal.flush()?,
    };
    files::create_folder(&folder)?;
    files::write_atomic(&folder.join("arch.json"), arch_json(&snapshot.space, arch)?.as_bytes())?;
    files::write_atomic(&path, &snapshot.to_archive()?.to_bytes()?)?;
    run.checkpoints.clear(subject)
}

/// Batch-norm statistics averaged over one pass of the training images in batches of `bn_batch`.
fn cumulative(
    model: &Model,
    session: &Session,
    loader: &mut Loader,
    bn_batch: usize,
    arch: &Arch,
) -> Result<Statistics> {
    let device = session.store.device();
    let mut calibration = Calibration::new(model);
    let mut batch = Batch::default();
    for _ in 0..loader.steps() {
        loader.next(&mut batch)?;
        let [n, h, w, c] = batch.shape;
        let pixels = h * w * c;
        for from in (0..n / bn_batch * bn_batch).step_by(bn_batch) {
            let images = &batch.images[from * pixels..(from + bn_batch) * pixels];
            let mut tape = engine::Tape::inference(device);
            let x = tape.constant(engine::Tensor::from_slice(device, [bn_batch, h, w, c], images)?);
            let mut moments = Vec::new();
            let mut cx = Context {
                tape: &mut tape,
                store: &session.store,
                norms: Norms::Batch(&mut moments),
                dropout: None,
            };
            model.forward(&mut cx, arch, &x)?;
            calibration.add(&moments)?;
        }
    }
    let mut statistics = model.fresh_statistics(device)?;
    calibration.finish(device, &mut statistics)?;
    Ok(statistics)
}

fn test(run: &mut Run<'_>, subject: &str) -> Result<(Network, u64)> {
    let folder = run.dir.network(subject);
    let snapshot = Snapshot::load(&folder.join("model.safetensors"), &run.device)?;
    let path = folder.join("score.json");
    let text = snapshot.space.text(&snapshot.arch);
    let score = if path.exists() {
        let tested: Tested = serde_json::from_slice(&files::read(&path)?)
            .map_err(|e| Error::Format { path: path.clone(), reason: e.to_string() })?;
        run.journal.vouch(tested.events);
        tested.score
    } else {
        let batch = run.recipe.search.eval_batch;
        let images = scored_batches(&run.device, &run.recipe.data, &run.data.test, batch, run.recipe.seed)?;
        let Snapshot { model, store, statistics, .. } = &snapshot;
        let score = evaluate::score(model, store, statistics, &model.space().first(), images);
        let batches = vec![("search.eval-batch", batch.min(run.data.test.len()), NormsBy::Statistics)];
        let scoring = Scoring { stage: Stage::Evaluate.name(), model, store, images: 0, batches };
        let score = score.map_err(|error| scoring.explain(error))?;
        run.journal.record(Event::Scored {
            subject: subject.to_owned(),
            arch: text.clone(),
            top1: share(score.top1, score.images),
            top5: share(score.top5, score.images),
            images: score.images,
        })?;
        let tested = Tested { score, events: run.journal.flush()? };
        let json = serde_json::to_string_pretty(&tested)
            .map_err(|e| Error::Format { path: path.clone(), reason: e.to_string() })?;
        files::write_atomic(&path, json.as_bytes())?;
        score
    };
    // Parameters are counted with the affine batch norms that the network has.
    let cost = snapshot.model.space().cost(&snapshot.model.space().first());
    let top1 = share(score.top1, score.images);
    let network = Network {
        subject: subject.to_owned(),
        arch: text,
        top1,
        top5: share(score.top5, score.images),
        top1_error: (top1 * (1.0 - top1) / score.images.max(1) as f64).sqrt(),
        macs: cost.macs,
        params: cost.params,
        predicted_ms: run.bound.predict(&snapshot.arch),
        seconds: snapshot.seconds,
    };
    Ok((network, score.images))
}

fn summarise(run: &Run<'_>, networks: Vec<(Network, u64)>, search_seconds: f64) -> Result<Outcome> {
    let test_images = networks.first().map_or(0, |(_, images)| *images);
    let (mut found, mut largest, mut random) = (None, None, Vec::new());
    for (network, _) in networks {
        match network.subject.as_str() {
            "found" => found = Some(network),
            "largest" => largest = Some(network),
            _ => random.push(network),
        }
    }
    let accuracies: Vec<f64> = random.iter().map(|n| n.top1).collect();
    let n = accuracies.len();
    let mean = accuracies.iter().sum::<f64>() / n.max(1) as f64;
    let variance =
        accuracies.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / n.saturating_sub(1).max(1) as f64;
    let supernet =
        crate::checkpoint::Archive::from_bytes(&files::read(&run.dir.supernet())?, &run.dir.supernet())?;
    let supernet: serde_json::Value = supernet.meta(&run.dir.supernet())?;
    let retraining = random.iter().chain(&found).chain(&largest).map(|n| n.seconds).sum();
    Ok(Outcome {
        seed: run.recipe.seed,
        space: run.space.name().to_owned(),
        test_images,
        found: found.ok_or(Error::NothingFound)?,
        random: RandomNetworks {
            mean_top1: mean,
            std_top1: variance.sqrt(),
            best_top1: accuracies.iter().copied().fold(0.0, f64::max),
            n,
            networks: random,
        },
        largest,
        stages: vec![
            ("train-supernet".into(), supernet["seconds"].as_f64().unwrap_or(0.0)),
            ("search".into(), search_seconds),
            ("retrain".into(), retraining),
        ],
    })
}
