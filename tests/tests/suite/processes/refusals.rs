//! What keeps the program from starting is said with what to change, and ends it with exit code 1.

use std::net::{SocketAddr, TcpListener};

use tests::{mark::expect_none_with_environment, nats::Nats, program};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::ANY_PORT;

/// Runs a command that has to be refused, and checks that each of the words is in what it says.
async fn check(words: &[&str], expected: &[&str]) {
    let (code, out, err) = program::run(words).await;
    assert_eq!((code, out.as_str()), (1, ""), "{words:?}: {err}");
    for word in expected {
        assert!(err.contains(word), "{words:?}: `{word}` is not in: {err}");
    }
    assert!(!err.contains("panicked"), "{words:?}: {err}");
    assert_eq!(
        err.lines().filter(|line| line.starts_with("error: ")).count(),
        1,
        "{words:?}: {err}"
    );
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let taken = TcpListener::bind(ANY_PORT).expect("a free port");
    let taken = (taken.local_addr().expect("an address").to_string(), taken);
    let folder = Folder::new();
    let data = folder.path("data");
    let up = |listen, nats| {
        [
            "up",
            "--listen",
            listen,
            "--nats-listen",
            nats,
            "--data-dir",
            &data,
        ]
    };
    check(&up(&taken.0, ANY_PORT), &[&taken.0, "in use", "--listen"]).await;
    check(
        &up(ANY_PORT, &taken.0),
        &[&taken.0, "in use", "--nats-listen", "--nats nats://"],
    )
    .await;
    if cfg!(target_os = "linux") {
        // The nats-server of the start that failed is gone as well.
        let store = folder.0.path().join("data/nats").canonicalize();
        expect_none_with_environment(&store.expect("a data folder").to_string_lossy()).await;
    }
    let nats = Nats::start().await;
    let data = nats.data_dir().display().to_string();
    for (words, flag) in [
        (["bridge", "http", "--listen", &taken.0], "--listen"),
        (["bridge", "ws", "--listen", &taken.0], "--listen"),
        (
            ["bridge", "nats", "--metrics-listen", &taken.0],
            "--metrics-listen",
        ),
        (
            ["serve", "products", "--metrics-listen", &taken.0],
            "--metrics-listen",
        ),
    ] {
        let joining = ["--nats", nats.url(), "--data-dir", &data];
        check(
            &words.into_iter().chain(joining).collect::<Vec<_>>(),
            &[&taken.0, flag],
        )
        .await;
    }
}

#[tokio::test]
async fn a_nats_that_refuses_or_is_not_there_is_named_without_its_password() {
    let nats = Nats::start().await;
    let folder = Folder::new();
    let data = folder.path("data");
    let host = nats.url().trim_start_matches("nats://").to_owned();
    let wrong = format!("nats://core:hunter2@{host}");
    for command in [
        vec!["up", "--listen", ANY_PORT],
        vec!["serve", "products"],
        vec!["servers"],
        vec!["call", "a.b"],
    ] {
        let words: Vec<_> = command
            .into_iter()
            .chain(["--nats", &wrong, "--data-dir", &data])
            .collect();
        check(&words, &[&host, "refuses the credentials", "--data-dir"]).await;
        let (_, _, err) = program::run(&words).await;
        assert!(!err.contains("hunter2"), "{err}");
    }
    let nobody = TcpListener::bind(ANY_PORT)
        .and_then(|listener| listener.local_addr())
        .expect("a free port");
    let nobody = format!("nats://{nobody}");
    check(
        &["serve", "products", "--nats", &nobody, "--data-dir", &data],
        &[&nobody, "is it running"],
    )
    .await;
}

/// Speaks as much of the protocol as a nats-server of another version would at first.
async fn old_nats() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(ANY_PORT)
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let info = r#"INFO {"server_id":"old","server_name":"old","host":"127.0.0.1","port":1,"version":"2.9.10","go":"go1","proto":1,"headers":true,"max_payload":1048576,"client_id":1}"#;
                write.write_all(format!("{info}\r\n").as_bytes()).await?;
                let mut lines = BufReader::new(read).lines();
                while let Some(line) = lines.next_line().await? {
                    if line.starts_with("PING") {
                        write.write_all(b"PONG\r\n").await?;
                    }
                }
                std::io::Result::Ok(())
            });
        }
    });
    address
}

#[tokio::test]
async fn a_nats_that_is_too_old_is_named_with_its_version_and_the_one_that_is_needed() {
    let folder = Folder::new();
    let data = folder.path("data");
    let old = format!("nats://{}", old_nats().await);
    let words = ["up", "--listen", ANY_PORT, "--nats", &old, "--data-dir", &data];
    check(&words, &[&old, "2.9.10", "2.14.0", "upgrade"]).await;
    // A program that is no nats-server at all.
    let words = [
        "up",
        "--listen",
        ANY_PORT,
        "--nats-listen",
        ANY_PORT,
        "--nats-server",
        "/bin/echo",
        "--data-dir",
        &data,
    ];
    check(&words, &["/bin/echo", "nats-server", "2.15.1"]).await;
}

#[tokio::test]
async fn a_bad_line_in_the_file_is_shown_with_what_would_be_right() {
    let folder = Folder::new();
    let (file, data) = (folder.path("trunkline.toml"), folder.path("data"));
    for (text, expected) in [
        ("\nlistne = \"127.0.0.1:0\"", ["line 2", "listne", "listen"]),
        ("listen = \"8080\"", ["line 1", "listen", "socket address"]),
        (
            "[[servers]]\nid = \"a\"",
            ["neither a command nor a url", "write command", "url ="],
        ),
        (
            "[[servers]]\nid = \"A b\"\ncommand = [\"x\"]",
            ["line 2", "A b", "lower-case"],
        ),
        (
            "[[servers]]\nid = \"a\"\ncommand = []",
            ["`a`", "empty command", "command = ["],
        ),
    ] {
        std::fs::write(&file, text).expect("the file is written");
        check(&["up", "--config", &file, "--data-dir", &data], &expected).await;
        // Whoever uses the file hears the same.
        check(&["servers", "--config", &file, "--data-dir", &data], &expected).await;
    }
    let nowhere = folder.path("nowhere.toml");
    check(
        &["up", "--config", &nowhere, "--data-dir", &data],
        &[&nowhere, "--config"],
    )
    .await;
}

#[tokio::test]
async fn a_server_that_nobody_knows_is_refused_with_those_that_are_known() {
    let nats = Nats::start().await;
    let data = nats.data_dir().display().to_string();
    let file = nats.data_dir().join("trunkline.toml");
    std::fs::write(&file, "[[servers]]\nid = \"mine\"\ncommand = [\"x\"]").expect("the file is written");
    let file = file.display().to_string();
    let words = [
        "serve",
        "prodcuts",
        "--config",
        &file,
        "--nats",
        nats.url(),
        "--data-dir",
        &data,
    ];
    check(&words, &["`prodcuts`", "products", "mine"]).await;
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_ends_with_exit_code_2() {
    for words in [
        vec!["up", "--listen", "8080"],
        vec!["serve"],
        vec!["bridge", "pigeon"],
        vec!["fly"],
    ] {
        let (code, out, err) = program::run(&words).await;
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
    }
}
