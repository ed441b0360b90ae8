use serde_json::json;

use super::*;

const EXITED: Status = Status { code: Some(0), signal: None };

fn value() -> Reply {
    Reply::Settled(Settled::Json { value: json!(1) })
}

fn message(text: &str) -> Thrown {
    Thrown { message: text.to_owned(), ..Thrown::default() }
}

fn after(replies: Vec<Reply>) -> Progress {
    let mut progress = Progress::default();
    for reply in replies {
        assert!(progress.on_reply(reply).is_none());
    }
    progress
}

fn exited(code: Option<i32>, signal: Option<i32>) -> End {
    End::Exited { status: Status { code, signal }, out_of_memory: false }
}

fn check(replies: Vec<Reply>, end: End, expected: &str) {
    let verdict = format!("{:?}", after(replies).verdict(end));
    assert!(verdict.starts_with(expected), "{verdict} is not {expected}");
}

const VALUE: &str = "Settled { settled: Json { value: Number(1) }, open_handles: None, late: None }";

#[test]
fn without_a_value_each_end_has_its_own_verdict() {
    check(vec![], End::Drained, "NeverSettles");
    check(vec![], End::Deadline, "Timeout");
    check(vec![], End::ComputeLimit, "ComputeLimit");
    check(vec![], End::Cancelled, "Cancelled");
    check(vec![], End::OutputLimit, "OutputLimit");
    check(
        vec![],
        End::Broken(FrameError::TooLarge { bytes: 9 }),
        "BrokenChannel { detail: \"it sent a frame of 9",
    );
    check(vec![], End::ResultLimit, "ResultLimit");
    check(
        vec![],
        End::Broken(FrameError::Incomplete { bytes: 9 }),
        "BrokenChannel { detail: \"it sent 9 bytes of a frame whose end never came",
    );
    check(
        vec![],
        End::Broken(FrameError::Garbage("g".to_owned())),
        "BrokenChannel { detail: \"it sent a frame that",
    );
    check(vec![], End::ChannelClosed, "BrokenChannel { detail: \"it closed");
    check(vec![], End::Flooded, "BrokenChannel { detail: \"it flooded");
    check(vec![], exited(Some(1), None), "Exited { code: Some(1), signal: None, out_of_memory: false }");
    let end = End::Exited { status: Status { code: None, signal: Some(5) }, out_of_memory: true };
    check(vec![], end, "Exited { code: None, signal: Some(5), out_of_memory: true }");
}

#[test]
fn a_value_survives_every_end_but_cancel_and_flood_of_output() {
    check(vec![value()], End::Drained, VALUE);
    check(vec![value()], End::Broken(FrameError::TooLarge { bytes: 9 }), VALUE);
    check(vec![value()], End::Broken(FrameError::Garbage("g".to_owned())), VALUE);
    check(vec![value()], End::Broken(FrameError::Incomplete { bytes: 9 }), VALUE);
    check(vec![value()], End::ChannelClosed, VALUE);
    check(vec![value()], End::Flooded, VALUE);
    check(vec![value()], exited(Some(0), None), VALUE);
    check(vec![value()], End::Cancelled, "Cancelled");
    check(vec![value()], End::OutputLimit, "OutputLimit");
}

#[test]
fn what_is_open_at_the_deadline_is_named() {
    let open = Reply::Open { handles: vec!["Timeout".to_owned()] };
    check(
        vec![value(), open],
        End::Deadline,
        "Settled { settled: Json { value: Number(1) }, open_handles: Some([\"Timeout\"]), late: None }",
    );
    check(
        vec![value()],
        End::Deadline,
        "Settled { settled: Json { value: Number(1) }, open_handles: Some([]), late: None }",
    );
}

#[test]
fn the_first_claim_of_each_kind_counts() {
    let second = Reply::Settled(Settled::None);
    check(vec![value(), second], End::Drained, VALUE);
    let verdict =
        after(vec![value(), Reply::Late(message("a")), Reply::Late(message("b"))]).verdict(End::Drained);
    assert!(matches!(verdict, Verdict::Settled { late: Some(late), .. } if late.message == "a"));
}

#[test]
fn the_kernel_knows_the_exit_code_better() {
    let exit = || Reply::Settled(Settled::Exit { code: 1 });
    check(vec![exit()], exited(Some(7), None), "Settled { settled: Exit { code: 7 }");
    check(vec![exit()], End::Deadline, "Settled { settled: Exit { code: 1 }");
    // Killed on its way out.
    check(vec![exit()], exited(None, Some(9)), "Exited { code: None, signal: Some(9)");
}

#[test]
fn a_bad_end_after_the_value_is_late() {
    for (end, expected) in [(exited(Some(3), None), "exit status 3"), (exited(None, Some(9)), "signal 9")] {
        let Verdict::Settled { late: Some(late), .. } = after(vec![value()]).verdict(end) else { panic!() };
        assert_eq!(late.message, format!("the program ended with {expected} after its value was known"));
    }
    let end = End::Exited { status: EXITED, out_of_memory: false };
    assert!(matches!(after(vec![value()]).verdict(end), Verdict::Settled { late: None, .. }));
    // An error that was told before is the better explanation.
    let replies = vec![value(), Reply::Late(message("told"))];
    let Verdict::Settled { late: Some(late), .. } = after(replies).verdict(exited(Some(1), None)) else {
        panic!()
    };
    assert_eq!(late.message, "told");
}

#[test]
fn drained_ends_a_run_and_so_does_a_flood_of_replies() {
    assert!(matches!(after(vec![value()]).on_reply(Reply::Drained {}), Some(End::Drained)));
    let mut progress = Progress::default();
    let mut replies = 0;
    while progress.on_reply(Reply::Ready { drawn: None }).is_none() {
        replies += 1;
    }
    assert_eq!(replies, MAX_REPLIES);
}

#[test]
fn positions_in_stacks_are_tidied_everywhere() {
    let stack = || format!("Error\n    at f ({USER_SCRIPT_URL}, <anonymous>:3:4)");
    let inner = || Thrown { stack: stack(), ..Thrown::default() };
    let outer =
        Thrown { stack: stack(), cause: Some(Box::new(inner())), errors: vec![inner()], ..Thrown::default() };
    let progress = after(vec![Reply::Settled(Settled::Thrown { error: outer.clone() }), Reply::Late(outer)]);
    let Verdict::Settled { settled: Settled::Thrown { error }, late: Some(late), .. } =
        progress.verdict(End::Drained)
    else {
        panic!()
    };
    for error in [error, late] {
        for stack in [&error.stack, &error.cause.as_ref().unwrap().stack, &error.errors[0].stack] {
            assert_eq!(*stack, format!("Error\n    at f ({USER_SCRIPT_URL}:3:4)"));
        }
    }
}
