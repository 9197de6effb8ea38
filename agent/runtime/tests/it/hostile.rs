//! Containers that do their worst with what they have: each is bounded, and can be stopped and removed.

use std::{fs, os::unix::fs::symlink, time::Duration};

use coracle_runtime::{Error, ExecSpec, LogLimits, Mount, MountKind, Resources, Signal};

use crate::world::{World, exec, log_text};

/// Kilobytes a process has written to, and so has alone (proc(5), `smaps_rollup`).
fn own_kilobytes(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_a_container_can_fill_in_memory_is_bounded() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("fills");
    spec.shm_size = 2 << 20;
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let fill = |at: &str| {
        format!("dd if=/dev/zero of={at}/fill bs=64k 2>&1 | grep -o 'No space left on device'; wc -c < {at}/fill; ")
    };
    let line = ["/mem", "/dev/shm", "/dev"].map(fill).concat();
    let mut container = world.shell("c", &line);
    container.mounts =
        vec![Mount { kind: MountKind::Tmpfs { size: Some(1 << 20), mode: None }, ..Mount::bind("/", "/mem") }];
    let (_, text) = world.run(&sandbox, &container).await;
    let full = |bytes: u64| format!("No space left on device\n{bytes}\n");
    assert_eq!(text, [1 << 20, 2 << 20, 64 << 20].map(full).concat());
}

#[tokio::test]
async fn a_container_that_fills_memory_by_files_is_killed_and_not_its_neighbour() {
    let world = World::new().await;
    let sandbox = world.sandbox("tmpfs").await;
    let quiet = sandbox.start_container(&world.container("quiet", &["sleep", "1000"])).await.unwrap();
    // Without a bound of its own, what is in memory counts for who wrote it.
    let mut spec = world.shell("c", "dd if=/dev/zero of=/mem/fill bs=64k; sleep 1000");
    spec.mounts = vec![Mount { kind: MountKind::Tmpfs { size: None, mode: None }, ..Mount::bind("/", "/mem") }];
    spec.resources = Resources { memory_limit: Some(24 << 20), swap_limit: Some(0), ..Resources::default() };
    let status = sandbox.start_container(&spec).await.unwrap();
    exec(&sandbox, &quiet.id, "true").await;
    // Memory that is files is not freed by killing who wrote it: the kernel goes on until its group is empty.
    let exit = sandbox.wait(&status.id).await.unwrap();
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(exec(&sandbox, &quiet.id, "echo here").await.1, "here\n");
}

#[tokio::test]
async fn a_flood_of_output_stays_within_its_files_and_its_supervisor_small_and_awake() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("flood");
    spec.log_limits = LogLimits { max_size: 256 << 10, max_files: 3 };
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let quiet = sandbox.start_container(&world.container("quiet", &["sleep", "1000"])).await.unwrap();
    let mut floods = Vec::new();
    for (name, line) in [("lines", "yes"), ("both", "yes >&2 & yes"), ("endless", "cat /dev/zero")] {
        floods.push(sandbox.start_container(&world.shell(name, line)).await.unwrap());
    }
    let directories: Vec<_> = floods.iter().map(|status| status.log_path.parent().unwrap()).collect();
    // Every flood has run through all the files it may have.
    while directories.iter().any(|directory| fs::read_dir(directory).unwrap().count() < 3) {
        assert_eq!(exec(&sandbox, &quiet.id, "echo here").await.1, "here\n");
    }
    for directory in &directories {
        let sizes: Vec<u64> =
            fs::read_dir(directory).unwrap().filter_map(|entry| Some(entry.unwrap().metadata().ok()?.len())).collect();
        assert!(sizes.len() <= 3 && sizes.iter().all(|size| *size <= 256 << 10), "{sizes:?}");
    }
    for status in &floods {
        assert_eq!(sandbox.stop(&status.id, Duration::ZERO).await.unwrap().signal, Some(9));
    }
    let own = own_kilobytes(sandbox.supervisor_pid());
    // Hundreds of megabytes went through it; what it has for itself is a page or two for each container it knew.
    assert!(own < 4096, "{own} kB are the supervisor's own");
}

#[tokio::test]
async fn a_container_that_deletes_its_root_harms_itself_alone() {
    let world = World::new().await;
    let (data, kept) = (world.path("data"), world.path("kept"));
    for directory in [&data, &kept] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("file"), "word").unwrap();
    }
    let before = fs::read_dir(world.layer().join("bin")).unwrap().count();
    let sandbox = world.sandbox("deletes").await;
    let mut spec =
        world.shell("c", "rm -rf /* 2>/dev/null; : > /data/done; while :; do read word < /proc/self/stat; done");
    spec.mounts = vec![Mount::bind(&data, "/data"), Mount::bind(&kept, "/kept").readonly()];
    let status = sandbox.start_container(&spec).await.unwrap();
    let gone = ExecSpec { argv: vec!["/bin/true".into()], ..ExecSpec::default() };
    while !data.join("done").exists() {
        tokio::task::yield_now().await;
    }
    let Err(Error::Exec(error)) = sandbox.exec(&status.id, &gone).await else { panic!("it ran") };
    assert_eq!(error.message, "open /dev/null: no such file or directory");
    assert_eq!(fs::read_dir(world.layer().join("bin")).unwrap().count(), before);
    assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "word");
    sandbox.stop(&status.id, Duration::ZERO).await.unwrap();
    sandbox.remove_container(&status.id).await.unwrap();
    assert!(!data.join("file").exists(), "its own volume is its own to empty");
    assert_eq!(world.run(&sandbox, &world.shell("next", "echo well")).await.1, "well\n");
}

#[tokio::test]
async fn users_files_that_are_none_are_refused_at_once() {
    let world = World::new().await;
    let sandbox = world.sandbox("passwd").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let setups = [
        ("mkfifo /etc/passwd", "read /etc/passwd: not a regular file"),
        ("mkdir /etc/passwd", "read /etc/passwd: not a regular file"),
        ("ln -s /dev/zero /etc/passwd", "read /etc/passwd: not a regular file"),
        ("ln -s /proc/1/fd/1 /etc/passwd", "read /etc/passwd: too many symbolic links encountered"),
    ];
    // One process that was there before does it all; none can be started once it has.
    let spec = ExecSpec {
        argv: ["sh", "-c", "while read line; do rm -rf /etc/passwd; eval $line; echo done; done"]
            .map(str::to_owned)
            .to_vec(),
        stdin: true,
        ..ExecSpec::default()
    };
    let mut shell = sandbox.exec(&status.id, &spec).await.unwrap();
    let mut stdin = shell.stdin.take().unwrap();
    let mut stdout = tokio::io::BufReader::new(shell.stdout.take().unwrap());
    for (setup, words) in setups {
        tokio::io::AsyncWriteExt::write_all(&mut stdin, format!("{setup}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
        let run = ExecSpec { argv: vec!["true".into()], ..ExecSpec::default() };
        let Err(Error::Exec(error)) = sandbox.exec(&status.id, &run).await else { panic!("{setup}: it ran") };
        assert_eq!(error.message, words, "{setup}");
    }
}

/// CVE-2021-30465: the way to where something is mounted goes through a volume, whose owner swaps it for a link meanwhile.
#[tokio::test]
async fn mounts_through_a_volume_that_changes_stay_in_the_container() {
    let world = World::new().await;
    let (volume, data, secret) = (world.path("volume"), world.path("data"), world.path("secret"));
    for directory in [&volume, &data, &secret] {
        fs::create_dir(directory).unwrap();
    }
    fs::write(data.join("payload"), "x").unwrap();
    let up = format!("{}{}", "../".repeat(20), secret.display());
    symlink(&up, volume.join("link")).unwrap();
    fs::create_dir_all(volume.join("plain/at")).unwrap();
    let sandbox = world.sandbox("swap").await;
    let swaps = "cd /volume; while :; do mv -T plain spare; mv -T link plain; mv -T plain link; mv -T spare plain; done 2>/dev/null";
    let mut swapper = world.shell("swapper", swaps);
    swapper.mounts = vec![Mount::bind(&volume, "/volume")];
    let swapper = sandbox.start_container(&swapper).await.unwrap();
    let (mut inside, mut refused) = (0, 0);
    for attempt in 0..30 {
        let mut spec = world.shell("victim", "sleep 0.01");
        spec.attempt = attempt;
        spec.mounts = vec![Mount::bind(&volume, "/volume"), Mount::bind(&data, "/volume/plain/at")];
        match sandbox.start_container(&spec).await {
            Ok(status) => {
                inside += 1;
                sandbox.wait(&status.id).await.unwrap();
            }
            Err(Error::Start(error)) => {
                refused += 1;
                assert_eq!(error.step, "mount", "{error}");
            }
            Err(error) => panic!("{error}"),
        }
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 0, "attempt {attempt} reached the host");
    }
    sandbox.signal(&swapper.id, Signal::KILL).await.unwrap();
    assert_eq!(inside + refused, 30);
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(secret.to_str().unwrap()), "{table}");
}

#[tokio::test]
async fn daemons_of_a_container_are_adopted_and_die_with_it() {
    let world = World::new().await;
    let sandbox = world.sandbox("daemons").await;
    // Each leaves its parent and its session, ignores what asks it to end, and leaves children that do the same.
    let line = "trap '' TERM HUP INT; for n in 1 2 3 4 5; do (setsid sh -c 'trap \"\" TERM HUP INT; (setsid sleep 5555 &); sleep 5555' &); done; \
                while test $(ps -o args | grep -c '^slee[p] 5555') -lt 10; do :; done; echo there; exec sleep 5555";
    let status = sandbox.start_container(&world.shell("c", line)).await.unwrap();
    exec(&sandbox, &status.id, "while test $(ps -o args | grep -c '^slee[p] 5555') -lt 11; do :; done").await;
    let exit = sandbox.stop(&status.id, Duration::from_millis(20)).await.unwrap();
    assert_eq!(exit.signal, Some(9));
    assert_eq!(sandbox.container_stats(&status.id).await.unwrap().pids, 0);
    assert_eq!(log_text(&status.log_path), "there\n");
}
