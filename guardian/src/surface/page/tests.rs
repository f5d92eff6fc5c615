use std::sync::Arc;

use super::*;
use crate::surface::sample;

#[test]
fn other_peoples_text_is_text() {
    let mut hostile = sample::link(1);
    let actor = Arc::make_mut(&mut hostile.actor);
    actor.exe = Some("/tmp/<script>alert(1)</script>".into());
    actor.comm = "\"><img src=x onerror=alert(1)>".into();
    actor.argv = vec!["</pre><script>alert(2)</script>".into(), "'\"&".into()];
    hostile.object.text = "<b onclick=alert(3)>".into();
    hostile.incident = "\"><script>".into();
    let records = vec![hostile.clone()];
    let incidents = sample::incidents(vec![hostile]);
    let incidents = incidents.into_iter().map(|incident| (incident, records.clone())).collect();
    let shown = Shown { incidents, more: 0 };
    let filter = Filter { actor: "\"><script>alert(4)</script>".into(), object: "'\"<".into() };
    let page = render(&sample::status(), &filter, &Ok(shown));
    assert_eq!(page.html.matches("<script").count(), 1, "only our own: {}", page.html);
    for tag in ["<img", "<b ", "<script>"] {
        assert!(!page.html.contains(tag), "{tag}: {}", page.html);
    }
    assert!(page.html.contains("&lt;script&gt;alert(1)"), "{}", page.html);
    let nonce =
        page.policy.split("script-src 'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    assert!(page.html.contains(&format!("<script nonce=\"{nonce}\">")));
    assert!(!page.policy.contains("unsafe"));
    let other = render(&sample::status(), &Filter::default(), &Ok(Shown::default()));
    assert_ne!(other.policy, page.policy, "a nonce is used once");
}

#[test]
fn nothing_comes_from_elsewhere_and_what_is_left_out_is_said() {
    let shown = Shown { incidents: Vec::new(), more: 7 };
    let page = render(&sample::status(), &Filter::default(), &Ok(shown));
    assert!(!page.html.contains("http://") && !page.html.contains("https://"), "{}", page.html);
    assert!(page.html.contains("7 older incidents are not shown"), "{}", page.html);
    let page = render(&sample::status(), &Filter::default(), &Err("no <disk>".into()));
    assert!(page.html.contains("The journal cannot be read: no &lt;disk&gt;"), "{}", page.html);
}
