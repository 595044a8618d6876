//! Search spaces and counting.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use nas::cost::Counter;

/// List, show and count search spaces.
#[derive(Args)]
pub struct Space {
    #[command(subcommand)]
    command: SpaceCommand,
}

#[derive(Subcommand)]
enum SpaceCommand {
    /// List the built-in spaces
    List,
    /// Show the slots and candidates of a space
    Show {
        /// Name of a space, or the path of its TOML file
        space: String,
    },
    /// Count the networks of a space and the range of their costs
    Count {
        /// Name of a space, or the path of its TOML file
        space: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Count parameters and multiply-adds of one architecture.
#[derive(Args)]
pub struct Count {
    /// Name of a space, or the path of its TOML file
    #[arg(long)]
    space: String,
    /// The architecture in the space's text form, for example 02012100 in nas-bench-macro, or an arch.json
    #[arg(long, allow_hyphen_values = true, value_name = "TEXT|FILE")]
    arch: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn networks(space: &nas::Space) -> String {
    space.size().map_or_else(|| "more than 2^128".to_owned(), |n| n.to_string())
}

impl Space {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            SpaceCommand::List => {
                for (name, about) in nas::space::list() {
                    println!("{name:<20} {about}");
                }
            }
            SpaceCommand::Show { space } => println!("{}", nas::Space::load(&space)?.table()),
            SpaceCommand::Count { space, json } => {
                let space = nas::Space::load(&space)?;
                let (least, most) = (space.smallest_cost(), space.largest_cost());
                if json {
                    let value = serde_json::json!({
                        "space": space.name(),
                        "slots": space.slots().len(),
                        "networks": networks(&space),
                        "min_macs": least.macs, "max_macs": most.macs,
                        "min_params": least.params, "max_params": most.params,
                    });
                    println!("{value:#}");
                } else {
                    println!("space     {}", space.name());
                    println!("slots     {}", space.slots().len());
                    println!("networks  {}", networks(&space));
                    println!("macs      {} to {}", least.macs, most.macs);
                    println!("params    {} to {}", least.params, most.params);
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Count {
    /// Runs it.
    pub fn run(self) -> Result<ExitCode> {
        let space = nas::Space::load(&self.space)?;
        let arch = space.arch(&self.arch)?;
        let (cost, work) = (space.cost(&arch), space.work(&arch));
        let compat = Counter::ALL.map(|c| (c.name(), c.count(&work)));
        if self.json {
            let value = serde_json::json!({
                "space": space.name(), "arch": space.text(&arch),
                "params": cost.params, "macs": cost.macs,
                "compat": serde_json::Map::from_iter(compat.map(|(name, n)| (name.to_owned(), n.into()))),
            });
            println!("{value:#}");
        } else {
            println!("params {}\nmacs   {}", cost.params, cost.macs);
            compat.iter().for_each(|(name, n)| println!("{name:<6} {n}"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
