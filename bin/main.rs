//! The `monopath` command line: arguments and printing; the work is done by `nas`.

mod cmd;
mod meter;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Trains and searches weight-sharing supernets one path at a time.
///
/// Start with `monopath run recipes/quickstart.toml`: it trains a supernet on real images, searches
/// it, retrains what it found beside random networks, and writes a report.
#[derive(Parser)]
#[command(name = "monopath", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a recipe from images to a searched, retrained and tested network
    Run(cmd::run::Run),
    /// Run a recipe up to the shrunk space
    Shrink(cmd::run::Shrink),
    /// Run a recipe up to the trained supernet
    TrainSupernet(cmd::run::TrainSupernet),
    /// Search the supernet of a run directory
    Search(cmd::run::Continue),
    /// Retrain the networks that a run has found
    Retrain(cmd::run::Continue),
    /// Test the retrained networks of a run and write its result
    Evaluate(cmd::run::Continue),
    /// Write the report of a run directory again
    Report(cmd::run::Report),
    /// Tell how well a cheap score orders trained networks
    Rank(cmd::rank::Rank),
    /// Classify images with the found network of a run
    Predict(cmd::predict::Predict),
    /// List, show and count search spaces
    Space(cmd::space::Space),
    /// Count parameters and multiply-adds of one architecture
    ///
    /// Below them stand the counts of papers that count otherwise: `thop` adds batch norms, pooling and
    /// biases (Cream), `abs` counts a linear layer's additions apart (ABS).
    Count(cmd::space::Count),
    /// Look at data sets, pack them into one file, verify such files
    Data(cmd::data::Data),
    /// List what this machine can compute on
    Devices(cmd::devices::Devices),
    /// Measure speed
    Bench(cmd::bench::Bench),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(c) => c.run(),
        Command::Shrink(c) => c.run(),
        Command::TrainSupernet(c) => c.run(),
        Command::Search(c) => c.run(nas::event::Stage::Search),
        Command::Retrain(c) => c.run(nas::event::Stage::Retrain),
        Command::Evaluate(c) => c.run(nas::event::Stage::Evaluate),
        Command::Report(c) => c.run(),
        Command::Rank(c) => c.run(),
        Command::Predict(c) => c.run(),
        Command::Space(c) => c.run(),
        Command::Count(c) => c.run(),
        Command::Data(c) => c.run(),
        Command::Devices(c) => c.run(),
        Command::Bench(c) => c.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // A reader that closed the pipe has seen enough.
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            {
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {}", told(&error));
            ExitCode::from(if setup::is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// The error with its causes, but for those that it has named itself.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.ends_with(&cause) => told,
        before => format!("{before}: {cause}"),
    })
}
