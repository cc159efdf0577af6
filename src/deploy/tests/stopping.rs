//! What a server that stops leaves behind.

use futures_lite::FutureExt;

use super::*;

#[test]
fn handlers_that_were_taken_over_are_stopped_though_all_was_not_restored_yet() {
    let stage = Stage::new("early");
    stage.run(stage.deploy("f", "one", 1)).unwrap();
    let (name, digest, alive) = (Name::parse("f").unwrap(), stage.digest("f"), stage.backend.alive());
    let started = Started { id: alive[0].clone(), addresses: vec![Address::Unix(stage.backend.dir.join(&alive[0]))] };
    for leaving in [true, false] {
        let after = Played { next: AtomicUsize::new(10), ..Played::default() };
        *lock(&after.found) = vec![Found { started: started.clone(), name: name.clone(), digest: digest.clone() }];
        *lock(&after.sweeps) = true;
        lock(&after.alive).extend(alive.clone());
        let stage = stage.again(after);
        stage.run(async {
            let taken = stage.until("it is taken over", |s| {
                s.dispatch.function("f").is_some_and(|function| !function.snapshot().is_empty())
            });
            stage.restore().or(taken).await;
            if leaving {
                stage.deployer.leave().await
            } else {
                stage.deployer.stop().await
            }
            assert_eq!(stage.backend.alive().is_empty(), !leaving);
        });
    }
}
