//! Single faults, each with the outcome that docs/faults.md promises.

use std::time::Duration;

use windrose_proto::tenant::TenantId;
use windrose_proto::time::Clock as _;

use crate::load::Message;
use crate::load::whole_trace;
use crate::world::World;

/// A request with all spans of one trace.
fn request(world: &World, tenant: &str, number: u64) -> Message {
    whole_trace(TenantId::new(tenant).unwrap(), number, world.clock.now())
}

/// A seal that one tenant's rows make due says for the others too which of their traces are open.
#[test]
fn a_seal_without_rows_of_a_tenant_remembers_its_open_traces() {
    let mut world = World::new(1);
    world.tick(Duration::from_millis(6_900));
    let of_other = request(&world, "other", 1);
    assert_eq!(world.send(&[of_other]), [Ok(())]);
    world.tick(Duration::from_millis(200));
    assert_eq!(world.files_below("tables/_seals").len(), 1, "the trace is open and its spans are sealed");
    for number in 0..20 {
        let messages: Vec<Message> = (0..5).map(|of| request(&world, "default", 100 + number * 5 + of)).collect();
        world.send(&messages);
    }
    world.tick(Duration::from_millis(200));
    assert_eq!(world.files_below("tables/_seals").len(), 2, "the other tenant's rows made a seal due");
    world.kill();
    world.check_answers();
}
