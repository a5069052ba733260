//! Compares the storage toolkit with raw baselines and with its peers, side by side in one run.
//!
//! ```text
//! cargo run --release -- --section queue            one section
//! cargo run --release -- --quick --no-peers         does the bench work? seconds, no figures worth keeping
//! cargo run --release                               all that needs no servers, but for `build`; writes docs/performance.md
//! ```
#![forbid(unsafe_code)]

mod blobs;
mod brokers;
mod context;
mod corpus;
mod files;
mod first_build;
mod folders;
mod layers;
mod machine;
mod measure;
mod memory;
mod movers;
mod node;
mod ours;
mod postgres;
mod python;
mod queue;
mod records;
mod remote;
mod report;
mod seaweed;
mod subject;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};

use context::{Context, Options};
use report::Section;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SectionName {
    /// SQLite queue against rusqlite, apalis, fang, huey, persist-queue and honker.
    Queue,
    /// SQLite records against sqlx.
    Records,
    /// Records as files against the bare calls.
    Fs,
    /// Records in memory against a locked map.
    Memory,
    /// Blobs in a folder against a copy and object_store.
    Blobs,
    /// Large files to a folder and to SeaweedFS against object_store, OpenDAL and rclone.
    Remote,
    /// Many small files to a folder and to SeaweedFS against rclone.
    Folders,
    /// What policies cost per call, and transforms per byte.
    Layers,
    /// Queues on RabbitMQ, Redis, NATS and Azure against the servers' own clients, apalis, BullMQ and Celery.
    Brokers,
    /// Records and a queue on PostgreSQL against sqlx, apalis, graphile-worker and procrastinate.
    Postgres,
    /// Records on Azure Table Storage, as its emulator has it, against Python's official client.
    Tables,
    /// The first build of the command; minutes, and only when asked for.
    Build,
}

impl SectionName {
    /// What a run without `--section` measures.
    const USUAL: [Self; 8] =
        [Self::Queue, Self::Records, Self::Fs, Self::Memory, Self::Blobs, Self::Remote, Self::Folders, Self::Layers];

    fn id(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Records => "records",
            Self::Fs => "fs",
            Self::Memory => "memory",
            Self::Blobs => "blobs",
            Self::Remote => "remote",
            Self::Folders => "folders",
            Self::Layers => "layers",
            Self::Brokers => "brokers",
            Self::Postgres => "postgres",
            Self::Tables => "tables",
            Self::Build => "build",
        }
    }

    async fn run(self, context: &Context) -> Result<Section> {
        match self {
            Self::Queue => queue::run(context).await,
            Self::Records => records::run(context).await,
            Self::Fs => files::run(context).await,
            Self::Memory => memory::run(context).await,
            Self::Blobs => blobs::run(context).await,
            Self::Remote => remote::run(context).await,
            Self::Folders => folders::run(context).await,
            Self::Layers => layers::run(context),
            Self::Brokers => brokers::run(context).await,
            Self::Postgres => postgres::run(context).await,
            Self::Tables => tables::run(context).await,
            Self::Build => first_build::run(context).await,
        }
    }
}

/// Compares the storage toolkit with raw baselines and with its peers, side by side in one run.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    child: Option<Child>,
    /// What to measure; may be given more than once. Without it: all that needs no servers, but for `build`.
    #[arg(long, value_enum)]
    section: Vec<SectionName>,
    /// Small sizes and two rounds: a smoke test. Writes no document unless `--doc` is given.
    #[arg(long)]
    quick: bool,
    /// Rounds that count, after one warm-up.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Write this run's samples to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The document to write into; sections that this run leaves out stay as they stand there.
    /// [default: the repository's docs/performance.md; with `--quick`, none]
    #[arg(long, value_name = "FILE")]
    doc: Option<PathBuf>,
    /// Folder in which every subject writes. Must be on a disk. [default: target/data beside the bench]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Measure only the queue cases whose title contains this text, such as "8 at once". Writes no document unless `--doc` is
    /// given.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    case: String,
    /// Measure only the queue's subjects whose name contains this text. Writes no document unless `--doc` is given.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    subject: String,
    /// Leave out the peers that have to be built (fang) or installed (Python's, BullMQ).
    #[arg(long)]
    no_peers: bool,
}

/// What the bench runs itself for.
#[derive(Debug, Subcommand)]
enum Child {
    /// One large transfer, whose peak memory is then its own.
    #[command(hide = true)]
    Transfer(blobs::TransferArgs),
    /// One job of the sections `remote` and `folders`.
    #[command(hide = true)]
    Move(movers::MoveArgs),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(bench(args))
}

async fn bench(args: Args) -> Result<()> {
    match &args.child {
        Some(Child::Transfer(args)) => return blobs::transfer(args).await,
        Some(Child::Move(args)) => return movers::work(args).await,
        None => {}
    }
    let home = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let options = Options {
        rounds: args.rounds.map_or(if args.quick { 2 } else { 5 }, usize::from),
        quick: args.quick,
        no_peers: args.no_peers,
        case: args.case,
        subject: args.subject,
    };
    let context = Context::new(home, args.dir, options)?;
    let names = if args.section.is_empty() { SectionName::USUAL.to_vec() } else { args.section };

    let mut sections = Vec::with_capacity(names.len());
    for name in names {
        let section = name.run(&context).await.with_context(|| format!("section {}", name.id()))?;
        print(&report::text(&section));
        sections.push(section);
    }
    if let Some(file) = &args.json {
        let json = serde_json::to_vec_pretty(&sections)?;
        std::fs::write(file, json).with_context(|| format!("writing {}", file.display()))?;
    }
    let doc = args.doc.or_else(|| (!context.partial()).then(|| context.root().join("docs/performance.md")));
    let Some(doc) = doc else { return Ok(()) };
    write_document(&context, &doc, &sections)
}

/// Writes this run's sections into the document. Of small sizes and picked cases, which are for looking at, it makes one by themselves.
fn write_document(context: &Context, doc: &Path, sections: &[Section]) -> Result<()> {
    let before = match std::fs::read_to_string(doc) {
        Ok(before) if !context.partial() => before,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context("reading the document"),
        _ => String::new(),
    };
    let changes = std::fs::read_to_string(context.home.join("CHANGES.md")).context("reading benches/CHANGES.md")?;
    if let Some(folder) = doc.parent() {
        std::fs::create_dir_all(folder).context("making the document's folder")?;
    }
    std::fs::write(doc, report::document(&before, sections, &changes)).with_context(|| format!("writing {}", doc.display()))?;
    context.progress(&format!("wrote {}", doc.display()));
    Ok(())
}

#[allow(clippy::print_stdout)] // the tables are the program's output
fn print(text: &str) {
    println!("{text}");
}
