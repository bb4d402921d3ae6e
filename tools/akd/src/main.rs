//! Measures how many changed labels a second AKD publishes in memory (README.md beside this folder's `src`).
//!
//! The tree gets ENTRIES labels. Then each line of standard input is a turn, which publishes new values of CHANGED
//! of them as one epoch. Standard output gets a line of JSON for the filling and for each turn: the labels, the
//! labels a second, and the peak memory.

use std::time::Instant;

use akd::append_only_zks::AzksParallelismConfig;
use akd::directory::Directory;
use akd::ecvrf::HardCodedAkdVRF;
use akd::storage::memory::AsyncInMemoryDatabase;
use akd::storage::StorageManager;
use akd::{AkdLabel, AkdValue, WhatsAppV1Configuration};

/// Labels of one epoch while the tree is filled.
const FILL: usize = 50_000;
/// A prime, so that the labels of a turn spread over all, and none comes twice.
const STRIDE: usize = 7_919;
/// Bytes of a value: those of an entry hash and a commitment.
const VALUE: usize = 64;

fn label(number: usize) -> AkdLabel {
    AkdLabel::from(&format!("person {number}"))
}

fn value(number: usize, turn: usize) -> AkdValue {
    let mut bytes = vec![0u8; VALUE];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    bytes[8..16].copy_from_slice(&(turn as u64).to_be_bytes());
    AkdValue(bytes)
}

/// Returns the most resident memory of this process so far in MB, if the system reports it.
fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024.0)
}

async fn measure(entries: usize, changed: usize) -> Result<(), Box<dyn std::error::Error>> {
    // Without AKD's cache: the database is memory itself, and the cache would be a second copy of it.
    let storage = StorageManager::new_no_cache(AsyncInMemoryDatabase::new());
    let directory = Directory::<WhatsAppV1Configuration, _, _>::new(
        storage,
        HardCodedAkdVRF {},
        AzksParallelismConfig::default(),
    )
    .await?;
    let began = Instant::now();
    for first in (0..entries).step_by(FILL) {
        let last = entries.min(first + FILL);
        directory.publish((first..last).map(|number| (label(number), value(number, 0))).collect()).await?;
    }
    report(entries, began);
    for (turn, line) in std::io::stdin().lines().enumerate() {
        line?;
        let update = (0..changed)
            .map(|at| (turn + at * STRIDE) % entries)
            .map(|number| (label(number), value(number, turn + 1)))
            .collect();
        let began = Instant::now();
        directory.publish(update).await?;
        report(changed, began);
    }
    Ok(())
}

/// Prints how many labels a second were published since `began`, and the memory.
fn report(labels: usize, began: Instant) {
    let rate = labels as f64 / began.elapsed().as_secs_f64();
    let memory = peak_megabytes().map_or("null".to_string(), |found| format!("{found:.1}"));
    println!("{{\"labels\": {labels}, \"labels_per_second\": {rate:.1}, \"peak_megabytes\": {memory}}}");
}

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).map_while(|word| word.parse().ok()).collect();
    let &[entries, changed] = given.as_slice() else {
        eprintln!("usage: akd-publish ENTRIES CHANGED, for instance akd-publish 100000 20000");
        std::process::exit(2);
    };
    if changed == 0 || changed > entries || entries % STRIDE == 0 {
        eprintln!("CHANGED must be 1 to ENTRIES, and ENTRIES no multiple of {STRIDE}");
        std::process::exit(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(measure(entries, changed)),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = done {
        eprintln!("akd-publish failed: {error}");
        std::process::exit(1);
    }
}
