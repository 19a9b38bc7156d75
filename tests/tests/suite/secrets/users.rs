//! Users connect their own accounts at a server: each works with his own, nobody with another's, and nothing of it is kept in clear.

use std::{fs, path::PathBuf};

use reqwest::{StatusCode, Url, header};
use serde_json::{Value, json};
use tests::{accounts::Knows, http::text, issuer};

use super::stage::{PUBLIC, again, link_in, said, stage, staged};

#[tokio::test]
async fn each_user_is_asked_once_and_works_with_the_account_that_he_has_connected() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    for (user, account) in [("ann", "ann-at-work"), ("bob", "bob-at-work")] {
        let asked = stage.call(user, &json!({})).await;
        let link = link_in(&asked);
        assert!(link.starts_with(&format!("{PUBLIC}/connect/")), "{link}");
        let page = stage.browse(reqwest::Method::GET, &link, None).await;
        assert_eq!(said(&page, header::X_FRAME_OPTIONS), "DENY");
        let page = page.text().await.expect("a page");
        assert!(page.contains(user) && page.contains("there"), "{page}");
        stage.connect(&link, account).await;
        // The client comes back when its user says so.
        let answer = stage.call(user, &again(&asked, "accept")).await;
        assert_eq!(text(&answer), account, "{answer}");
    }
    for (user, account) in [
        ("ann", "ann-at-work"),
        ("bob", "bob-at-work"),
        ("ann", "ann-at-work"),
    ] {
        let answer = stage.client_of(user).call("whoami", json!({})).await;
        assert_eq!(text(&answer), account, "{answer}");
    }
    // A user who says no is not asked over and over by the same call.
    let asked = stage.call("eve", &json!({})).await;
    let answer = stage.call("eve", &again(&asked, "decline")).await;
    assert!(answer["error"].is_object(), "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_client_that_opens_no_pages_is_told_where_to_go() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(answer["error"]["code"], -32042, "{answer}");
    let page = &answer["error"]["data"]["elicitations"][0];
    let link = page["url"].as_str().expect("a link").to_owned();
    assert_eq!(page["mode"], "url");
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(words.contains(&link), "{words}");
    stage.connect(&link, "ann-at-work").await;
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_link_is_followed_once_and_ended_by_the_browser_that_followed_it() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let get = |url: String, cookie: Option<String>| {
        let stage = &stage;
        async move {
            stage
                .browse(reqwest::Method::GET, &url, cookie.as_deref())
                .await
                .status()
        }
    };
    let link = stage.link_for("ann").await;
    // Looking at it any number of times uses nothing up, as programs do that, too.
    for _ in 0..3 {
        assert_eq!(get(link.clone(), None).await, StatusCode::OK);
    }
    let (page, cookie) = stage.follow(&link).await;
    let twice = stage.browse(reqwest::Method::POST, &link, None).await;
    assert_eq!(twice.status(), StatusCode::GONE);
    assert_eq!(get(link.clone(), None).await, StatusCode::GONE);
    let back = stage.agree(&page, "eves-account").await;
    // Without the cookie, as when somebody is sent the issuer's page, and with a foreign one.
    assert_eq!(get(back.clone(), None).await, StatusCode::FORBIDDEN);
    let foreign = format!("{}=x", cookie.split('=').next().unwrap_or_default());
    assert_eq!(get(back.clone(), Some(foreign)).await, StatusCode::FORBIDDEN);
    // An answer that says it is another issuer's, or nobody's.
    let forged = back.replace("iss=http", "iss=https");
    assert_ne!(forged, back);
    assert_eq!(get(forged, Some(cookie.clone())).await, StatusCode::BAD_GATEWAY);
    assert_eq!(
        get(back, Some(cookie.clone())).await,
        StatusCode::GONE,
        "that used it up"
    );
    // What stands in a state is no link, and what stands in a link is no state.
    let state = Url::parse(&page).expect("a URL");
    let state = state
        .query_pairs()
        .find(|(key, _)| key == "state")
        .expect("a state")
        .1
        .into_owned();
    for nowhere in [
        state.as_str(),
        "guessed",
        "callback?state=guessed&code=x",
        "callback",
    ] {
        let status = get(format!("{PUBLIC}/connect/{nowhere}"), Some(cookie.clone())).await;
        assert_eq!(status, StatusCode::GONE, "{nowhere}");
    }
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(answer["error"]["code"], -32042, "nobody was connected: {answer}");
    // The link that comes now is another, and one where the user says no connects nobody either.
    let other = stage.link_for("ann").await;
    assert_ne!(other, link);
    assert_eq!(
        stage.link_for("ann").await,
        other,
        "it is good until it is followed"
    );
    let (page, cookie) = stage.follow(&other).await;
    let back = stage.agree(&page, "").await;
    assert_eq!(get(back, Some(cookie)).await, StatusCode::FORBIDDEN);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_is_exchanged_by_one_for_all_and_its_user_asked_anew_when_that_fails() {
    let stage = stage(Knows::Documents, PUBLIC).await;
    let document = stage
        .browse(
            reqwest::Method::GET,
            &format!("{PUBLIC}/connect/client.json"),
            None,
        )
        .await;
    let document: Value = document.json().await.expect("JSON");
    assert_eq!(document["client_id"], format!("{PUBLIC}/connect/client.json"));
    assert_eq!(
        document["redirect_uris"],
        json!([format!("{PUBLIC}/connect/callback")])
    );
    // It is over before it is used, so that every use needs another.
    stage.accounts.set_life(1);
    stage.connect(&stage.link_for("ann").await, "ann-at-work").await;
    stage.accounts.set_life(3_600);
    let client = stage.client_of("ann");
    let calls = (0..8).map(|_| client.call("whoami", json!({})));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(text(&answer), "ann-at-work", "{answer}");
    }
    assert_eq!(stage.accounts.refreshed(), (1, 0));
    stage.accounts.revoke("ann-at-work");
    let answer = client.call("whoami", json!({})).await;
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(words.contains("connect again"), "{words}");
    let asked = stage.call("ann", &json!({})).await;
    stage.connect(&link_in(&asked), "ann-at-home").await;
    let answer = stage.call("ann", &again(&asked, "accept")).await;
    assert_eq!(text(&answer), "ann-at-home", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_link_that_was_sent_to_somebody_else_connects_nobody() {
    let stage = staged(Knows::Registration, PUBLIC, |issuer, folder| {
        let secret = folder.join("client");
        fs::write(&secret, issuer::CLIENT.1).expect("written");
        format!(
            "[credentials.login]\nissuer = {}\nclient_id = {}\nclient_secret = {{ file = {} }}\nallow_private = true",
            json!(issuer.url()),
            json!(issuer::CLIENT.0),
            json!(secret)
        )
    })
    .await;
    let get = async |url: &str, cookie: &str| stage.browse(reqwest::Method::GET, url, Some(cookie)).await;
    // Eve sends her link to Ann, who believes that it is hers.
    let (login, cookie) = stage.follow(&stage.link_for("eve").await).await;
    assert!(login.starts_with(&stage.issuer.at("/authorize")), "{login}");
    let back = stage.agree(&login, "ann").await;
    let refused = get(&back, &cookie).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.text().await.expect("a page").contains("another user"));
    assert_eq!(get(&back, &cookie).await.status(), StatusCode::GONE);
    // The login cannot be left out: its state is none that a server's issuer answers.
    let (login, cookie) = stage.follow(&stage.link_for("eve").await).await;
    let past = stage
        .agree(&login, "eve")
        .await
        .replace("/connect/login", "/connect/callback");
    assert_eq!(get(&past, &cookie).await.status(), StatusCode::GONE);
    let answer = stage.client_of("eve").call("whoami", json!({})).await;
    assert_eq!(answer["error"]["code"], -32042, "{answer}");
    // Whoever it is for logs in and goes on.
    let (login, cookie) = stage.follow(&stage.link_for("ann").await).await;
    let back = stage.agree(&login, "ann").await;
    assert_eq!(
        stage.browse(reqwest::Method::GET, &back, None).await.status(),
        StatusCode::FORBIDDEN
    );
    let page = said(&get(&back, &cookie).await, header::LOCATION);
    let back = stage.agree(&page, "ann-at-work").await;
    assert_eq!(get(&back, &cookie).await.status(), StatusCode::OK);
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    stage.platform.stop().await;
}

#[tokio::test]
async fn nothing_that_a_user_was_given_is_on_disk() {
    let stage = stage(Knows::Registration, PUBLIC).await;
    let link = stage.link_for("ann").await;
    stage.connect(&link, "ann-at-work").await;
    let answer = stage.client_of("ann").call("whoami", json!({})).await;
    assert_eq!(text(&answer), "ann-at-work", "{answer}");
    let secrets = stage.accounts.secrets();
    let called = stage.accounts.called();
    assert!(secrets.contains(&called[0].0), "it is a token that was given out");
    let in_link = link.rsplit('/').next().unwrap_or_default().to_owned();
    let folder = stage.platform.folder().to_owned();
    let kept: Vec<PathBuf> = super::files_of(&folder);
    let bytes: Vec<u8> = kept
        .iter()
        .flat_map(|file| fs::read(file).unwrap_or_default())
        .collect();
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(
        has("$KV.credentials."),
        "the credential is there, under its subject"
    );
    for secret in secrets.iter().chain([&in_link]) {
        assert!(!has(secret), "{secret}");
    }
    stage.platform.stop().await;
}
