//! What containers say, on disk.

use std::fs;

use coracle_runtime::LogLimits;

use crate::world::{World, log_text};

#[tokio::test]
async fn both_streams_are_written_with_their_names_times_and_tags() {
    let world = World::new().await;
    let sandbox = world.sandbox("streams").await;
    let (_, _) = world.run(&sandbox, &world.shell("c", "echo out; echo err >&2; printf part")).await;
    let path = world.path("logs").join("default_streams_uid-streams/c/0.log");
    let mut lines: Vec<Vec<String>> = fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| line.splitn(4, ' ').map(str::to_owned).collect())
        .collect();
    for line in &mut lines {
        let time = line.remove(0);
        assert_eq!((time.len(), &time[10..11], &time[29..]), (30, "T", "Z"), "{time}");
    }
    lines.sort();
    assert_eq!(lines, [["stderr", "F", "err"], ["stdout", "F", "out"], ["stdout", "P", "part"]]);
}

#[tokio::test]
async fn a_line_without_end_is_cut_and_costs_the_supervisor_no_memory() {
    let world = World::new().await;
    let sandbox = world.sandbox("long").await;
    let (exit, text) = world.run(&sandbox, &world.shell("c", "head -c 6000000 /dev/zero | tr '\\0' x; echo")).await;
    assert_eq!(exit.code, 0);
    assert_eq!(text.len(), 6_000_001);
    let path = world.path("logs").join("default_long_uid-long/c/0.log");
    let longest = fs::read_to_string(path).unwrap().lines().map(str::len).max().unwrap();
    assert_eq!(longest, 16384 + "2026-01-01T00:00:00.000000000Z stdout P ".len());
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", sandbox.supervisor_pid())).unwrap();
    let own = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    let kilobytes: u64 = own.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 1024, "{rollup}");
}

#[tokio::test]
async fn files_are_rotated_by_size_and_the_last_words_are_kept() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("rotate");
    spec.log_limits = LogLimits { max_size: 64 << 10, max_files: 3 };
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let status = sandbox.start_container(&world.shell("c", "seq 1 40000")).await.unwrap();
    assert_eq!(sandbox.wait(&status.id).await.unwrap().code, 0);
    let directory = status.log_path.parent().unwrap();
    let sizes: Vec<u64> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert_eq!(sizes.len(), 3);
    assert!(sizes.iter().all(|size| *size <= 64 << 10), "{sizes:?}");
    assert!(log_text(&status.log_path).ends_with("40000\n"));
}

#[tokio::test]
async fn each_attempt_has_a_file_of_its_own() {
    let world = World::new().await;
    let sandbox = world.sandbox("attempts").await;
    let mut spec = world.shell("c", "echo first");
    assert_eq!(world.run(&sandbox, &spec).await.1, "first\n");
    (spec.attempt, spec.argv[2]) = (1, "echo second".to_owned());
    assert_eq!(world.run(&sandbox, &spec).await.1, "second\n");
    assert_eq!(sandbox.containers().await.unwrap().len(), 2);
}
