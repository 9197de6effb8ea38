//! Cgroups: limits are set, bite, and are seen.

use std::time::Duration;

use coracle_runtime::{HugePageLimit, Resources};

use crate::world::{World, exec};

#[tokio::test]
async fn going_beyond_the_memory_limit_is_seen_as_that() {
    let world = World::new().await;
    let sandbox = world.sandbox("oom").await;
    let mut spec = world.shell("c", "dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.resources.memory_limit = Some(32 << 20);
    let (exit, _) = world.run(&sandbox, &spec).await;
    assert!(exit.oom_killed, "{exit:?}");

    let mut spec = world.container("first", &["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    spec.resources.memory_limit = Some(32 << 20);
    let (exit, _) = world.run(&sandbox, &spec).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), true));
    let (exit, _) = world.run(&sandbox, &world.shell("well", "kill -9 $$; exit 1")).await;
    assert!(!exit.oom_killed);
}

#[tokio::test]
async fn a_fork_bomb_stays_within_its_limit_and_can_be_killed() {
    let world = World::new().await;
    let sandbox = world.sandbox("bomb").await;
    let mut spec = world.shell("c", "while :; do (sleep 1000 &); done 2>/dev/null");
    spec.resources.pids_limit = Some(30);
    let status = sandbox.start_container(&spec).await.unwrap();
    loop {
        let stats = sandbox.container_stats(&status.id).await.unwrap();
        assert!(stats.pids <= 30);
        // A shell that cannot fork ends; the limit is then what was counted last.
        if stats.pids >= 28 || sandbox.containers().await.unwrap()[0].state != status.state {
            break;
        }
    }
    assert!(sandbox.stop(&status.id, Duration::ZERO).await.unwrap().finished_at >= status.created_at);
    assert_eq!(sandbox.container_stats(&status.id).await.unwrap().pids, 0);
}

#[tokio::test]
async fn the_kernel_takes_containers_and_never_their_supervisor_when_memory_runs_out() {
    let world = World::new().await;
    let sandbox = world.sandbox("victims").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    assert_eq!(exec(&sandbox, &status.id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await.1, "0\n0\n");
    let mut spec = world.container("likelier", &["sleep", "1000"]);
    spec.oom_score_adj = Some(300);
    let likelier = sandbox.start_container(&spec).await.unwrap();
    assert_eq!(
        exec(&sandbox, &likelier.id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").await.1,
        "300\n300\n"
    );
    let supervisor = format!("/proc/{}/oom_score_adj", sandbox.supervisor_pid());
    // Sparing itself is for who has CAP_SYS_RESOURCE.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let may = u64::from_str_radix(effective, 16).unwrap() & (1 << 24) != 0;
    assert_eq!(std::fs::read_to_string(supervisor).unwrap(), if may { "-1000\n" } else { "0\n" });
}

#[tokio::test]
async fn a_fork_bomb_with_next_to_no_time_to_die_in_is_stopped_and_its_pod_bound_again() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("starved");
    let bound = Resources {
        cpu_quota: Some(10_000),
        cpu_period: Some(100_000),
        memory_limit: Some(48 << 20),
        pids_limit: Some(1000),
        ..Resources::default()
    };
    spec.resources = bound.clone();
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let mut bomb = world.shell("c", "bomb() { bomb | bomb & }; bomb; exec sleep 1000");
    bomb.resources = bound;
    // As the agent has it for such a pod: where the supervisor may not spare itself, that is what keeps it alive.
    bomb.oom_score_adj = Some(999);
    let status = sandbox.start_container(&bomb).await.unwrap();
    while sandbox.container_stats(&status.id).await.unwrap().pids < 50 {
        tokio::task::yield_now().await;
    }
    // It answers within the time a kill may take, or with an error.
    assert_eq!(sandbox.stop(&status.id, Duration::ZERO).await.unwrap().signal, Some(9));
    assert_eq!(sandbox.container_stats(&status.id).await.unwrap().pids, 0);
    assert_eq!(cpu_bound(&world, "starved"), "10000");

    // To what it has been given since it was made.
    let more = Resources { cpu_quota: Some(20_000), cpu_period: Some(50_000), ..Resources::default() };
    sandbox.update_sandbox(&more).await.unwrap();
    let status = sandbox.start_container(&world.container("next", &["sleep", "1000"])).await.unwrap();
    sandbox.stop(&status.id, Duration::ZERO).await.unwrap();
    assert_eq!(cpu_bound(&world, "starved"), "20000");
}

/// What a pod is bound to, in microseconds of CPU time a period.
fn cpu_bound(world: &World, pod: &str) -> String {
    let group = format!("{}/kubepods/burstable/poduid-{pod}", world.mark());
    let v1 = std::fs::read_to_string(format!("/sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us"));
    let shown = v1.or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{group}/cpu.max"))).unwrap();
    shown.split_whitespace().next().unwrap().to_owned()
}

/// Since Linux 6.18 a pod runs into debt with its CPU time, and its supervisor with it.
#[tokio::test]
async fn a_pod_that_owes_minutes_of_cpu_time_answers_and_is_stopped() {
    const READERS: u64 = 16;
    let world = World::new().await;
    let sandbox = world.sandbox("debtor").await;
    // Each is in the kernel for some hundred milliseconds at a time.
    let readers = format!("for i in $(seq {READERS}); do dd if=/dev/urandom of=/dev/null bs=64M & done; wait");
    let status = sandbox.start_container(&world.shell("c", &readers)).await.unwrap();
    while sandbox.container_stats(&status.id).await.unwrap().pids <= READERS {
        tokio::task::yield_now().await;
    }
    let bound = Resources { cpu_quota: Some(1000), cpu_period: Some(100_000), ..Resources::default() };
    sandbox.update_sandbox(&bound).await.unwrap();
    let used = async || sandbox.sandbox_stats().await.unwrap().cpu_usage_ns;
    let before = used().await;
    while used().await < before + 5_000_000 {
        tokio::task::yield_now().await;
    }
    let asked = async {
        assert_eq!(sandbox.containers().await.unwrap().len(), 1);
        assert_eq!(world.runtime.list().await.unwrap().len(), 1);
        sandbox.stop(&status.id, Duration::from_secs(1)).await.unwrap();
        assert_eq!(sandbox.container_stats(&status.id).await.unwrap().pids, 0);
    };
    // What it owes takes it five times that.
    tokio::time::timeout(Duration::from_secs(60), asked).await.expect("it has no time to answer");
}

#[tokio::test]
async fn limits_are_those_asked_for_and_change_while_it_runs() {
    let world = World::new().await;
    let sandbox = world.sandbox("limits").await;
    let mut spec = world.container("c", &["sleep", "1000"]);
    spec.resources = Resources {
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        memory_limit: Some(64 << 20),
        pids_limit: Some(50),
        ..Resources::default()
    };
    let status = sandbox.start_container(&spec).await.unwrap();
    assert_eq!(sandbox.container_stats(&status.id).await.unwrap().memory_limit, Some(64 << 20));
    let more = Resources { memory_limit: Some(128 << 20), cpu_quota: Some(80_000), ..Resources::default() };
    sandbox.update_container(&status.id, &more).await.unwrap();
    assert_eq!(sandbox.container_stats(&status.id).await.unwrap().memory_limit, Some(128 << 20));
    let read = |file: &str| format!("cat /sys/fs/cgroup/{file}");
    if exec(&sandbox, &status.id, "test -d /sys/fs/cgroup/memory").await.0 == 0 {
        let line = ["cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "pids/pids.max"].map(read).join("; ");
        assert_eq!(exec(&sandbox, &status.id, &line).await.1, "512\n80000\n50\n");
    } else {
        let line = ["cpu.weight", "cpu.max", "pids.max"].map(read).join("; ");
        assert_eq!(exec(&sandbox, &status.id, &line).await.1, "20\n80000 100000\n50\n");
    }
}

/// What a file of a group holds, in v1 below the controller's own hierarchy; none where nothing counts that.
fn shown(controller: &str, group: &str, v1: &str, v2: &str) -> Option<String> {
    let read = |path: String| std::fs::read_to_string(path).ok();
    let text = read(format!("/sys/fs/cgroup/{controller}/{group}/{v1}"));
    text.or_else(|| read(format!("/sys/fs/cgroup/{group}/{v2}"))).map(|text| text.trim().to_owned())
}

#[tokio::test]
async fn all_pods_together_are_kept_from_what_is_reserved() {
    let world = World::new().await;
    let most = Resources {
        cpu_shares: Some(512),
        memory_limit: Some(64 << 20),
        pids_limit: Some(100),
        ..Resources::default()
    };
    world.runtime.limit_pods(&most).await.unwrap();
    let pods = format!("{}/kubepods", world.mark());
    for group in [world.mark(), &pods] {
        let weight = shown("cpu", group, "cpu.shares", "cpu.weight").unwrap();
        assert!(["512", "20"].contains(&weight.as_str()), "{group}: {weight}");
    }
    assert_eq!(shown("pids", &pods, "pids.max", "pids.max").as_deref(), Some("100"));
    assert_eq!(shown("memory", &pods, "memory.limit_in_bytes", "memory.max").as_deref(), Some("67108864"));
    // Neither the pod nor its container is limited in itself.
    let sandbox = world.sandbox("greedy").await;
    let (exit, _) = world.run(&sandbox, &world.shell("c", "dd if=/dev/zero of=/dev/null bs=200M count=1")).await;
    assert_eq!(exit.code, 137, "{exit:?}");
    assert_eq!(world.runtime.pods_stats().await.unwrap().memory_limit, Some(64 << 20));
    // They can be given more, and the limit goes with the groups.
    let more = Resources { memory_limit: Some(512 << 20), ..most };
    world.runtime.limit_pods(&more).await.unwrap();
    let (exit, _) = world.run(&sandbox, &world.shell("d", "dd if=/dev/zero of=/dev/null bs=200M count=1")).await;
    assert_eq!(exit.code, 0, "{exit:?}");
    world.runtime.remove_sandbox(sandbox.id()).await.unwrap();
    world.runtime.remove_empty_groups().await.unwrap();
    assert_eq!(shown("pids", &pods, "pids.max", "pids.max"), None);
}

#[tokio::test]
async fn huge_pages_are_limited_where_the_host_counts_them() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("huge");
    let pages = |limit| vec![HugePageLimit { page_size: "2MB".to_owned(), limit }];
    spec.resources = Resources { hugepages: pages(8 << 20), no_other_hugepages: true, ..Resources::default() };
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let mut spec = world.container("c", &["sleep", "1000"]);
    spec.resources = Resources { hugepages: pages(4 << 20), no_other_hugepages: true, ..Resources::default() };
    let status = sandbox.start_container(&spec).await.unwrap();
    let pod = format!("{}/kubepods/burstable/poduid-huge", world.mark());
    let group = format!("{pod}/{}", status.id);
    let limits = |group: &str| {
        ["2MB", "2MB.rsvd", "1GB"].map(|size| {
            shown("hugetlb", group, &format!("hugetlb.{size}.limit_in_bytes"), &format!("hugetlb.{size}.max"))
        })
    };
    let counts = limits(&pod)[0].is_some();
    let bytes = |megabytes: u64| counts.then(|| (megabytes << 20).to_string());
    // Pages of 1 GB and reservations are not to be had on every host; where they are, they are limited as well.
    let expect = |megabytes: u64, group: &str| {
        let [used, set_aside, other] = limits(group);
        assert_eq!(used, bytes(megabytes), "{group}");
        assert!(set_aside.is_none() || set_aside == bytes(megabytes), "{group}: {set_aside:?}");
        assert!(other.is_none() || other == bytes(0), "{group}: {other:?}");
    };
    expect(8, &pod);
    expect(4, &group);
    // Who says nothing of them leaves them as they are, and a size there is not is told.
    sandbox.update_container(&status.id, &Resources { pids_limit: Some(50), ..Resources::default() }).await.unwrap();
    expect(4, &group);
    sandbox
        .update_container(&status.id, &Resources { hugepages: pages(2 << 20), ..Resources::default() })
        .await
        .unwrap();
    expect(2, &group);
    let odd = vec![HugePageLimit { page_size: "3MB".to_owned(), limit: 0 }];
    let told = sandbox.update_container(&status.id, &Resources { hugepages: odd, ..Resources::default() }).await;
    assert_eq!(told.is_err(), counts, "{told:?}");
}

#[tokio::test]
async fn a_pod_is_limited_as_a_whole_and_counts_its_containers() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("pod");
    spec.resources.memory_limit = Some(64 << 20);
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let busy = "i=0; while test $i -lt 20000; do i=$((i+1)); done; exec sleep 1000";
    let status = sandbox.start_container(&world.shell("busy", busy)).await.unwrap();
    // A kernel whose clock only ticks counts nothing of what is shorter than a tick: the work must have been done.
    exec(&sandbox, &status.id, "until read -r name < /proc/1/comm && test $name = sleep; do :; done").await;
    // One after the other: what is still growing is counted for the pod at least as far as for the container.
    let container = sandbox.container_stats(&status.id).await.unwrap();
    let pod = sandbox.sandbox_stats().await.unwrap();
    assert_eq!(pod.memory_limit, Some(64 << 20));
    assert!(pod.memory_usage >= container.memory_working_set && container.memory_usage > 0);
    assert!(pod.pids > container.pids, "the supervisor counts for the pod: {pod:?} {container:?}");
    assert!(container.cpu_usage_ns > 0 && pod.cpu_usage_ns >= container.cpu_usage_ns);
}
