//! The page at `/` in a real browser, and the incidents that it shows.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Browser, Guardian, Lab, tethered, wait_for};

/// Three actors, each with something of its own; the pauses make them three incidents.
fn three_incidents(lab: &Lab) -> Result<Guardian> {
    let guardian = lab.guardian().start()?;
    let back = |key: &str| guardian.event(key, |e| e.key() == key && e.outcome() == "restored");
    lab.ip("route flush proto 17")?;
    back("10.244.2.0/24")?;
    let hostile = lab.copy("ip", "<b>ip<script>")?;
    ensure!(Command::new(&hostile).args(["link", "set", "kube-bridge", "down"]).status()?.success());
    back("kube-bridge")?;
    // Only what is told of later may end the wait.
    thread::sleep(Duration::from_millis(100));
    lab.batch("route del 10.244.3.0/24\nroute del fd00:244:2::/64\n")?;
    back("10.244.3.0/24")?;
    back("fd00:244:2::/64")?;
    Ok(guardian)
}

/// A browser that looks once. Of its own accord it would phone home: the namespace has no way out.
fn chromium(lab: &Lab, args: &[&str]) -> Result<Vec<u8>> {
    let profile = lab.dir().join("browser");
    let output = Command::new("timeout")
        .args(["--kill-after=1", "90", "chromium", "--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(args)
        .output()
        .context("cannot run chromium")?;
    ensure!(output.status.success(), "chromium: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Where pictures are left for people: `$ROUTE_GUARDIAN_PICTURES`, or with the test.
fn pictures(lab: &Lab) -> PathBuf {
    std::env::var_os("ROUTE_GUARDIAN_PICTURES").map_or_else(|| lab.dir().to_owned(), PathBuf::from)
}

fn picture(lab: &Lab, path: &Path, size: &str, more: &[&str]) -> Result<()> {
    let screenshot = format!("--screenshot={}", path.display());
    let size = format!("--window-size={size}");
    let mut args = vec![screenshot.as_str(), &size];
    args.extend(more);
    args.push("http://127.0.0.1:10953/");
    chromium(lab, &args)?;
    ensure!(fs::metadata(path)?.len() > 10_000, "an empty picture: {}", path.display());
    Ok(())
}

#[test]
fn the_page_in_a_browser() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = three_incidents(&lab)?;
    let url = "http://127.0.0.1:10953/";
    let text = |args: &[&str]| -> Result<String> {
        Ok(String::from_utf8_lossy(&chromium(&lab, args)?).into_owned())
    };

    // The script has run: it is let by the policy, and says so.
    let with = text(&["--dump-dom", url])?;
    assert_eq!(with.matches("<details").count(), 3, "{with}");
    assert!(with.contains("refreshes by itself"), "{with}");
    assert!(with.contains("&lt;b&gt;ip&lt;script&gt;["), "{with}");
    assert!(!with.contains("<b>ip") && with.matches("<script").count() == 1, "{with}");
    let at = |what: &str| with.find(what).with_context(|| format!("no {what} in {with}"));
    assert!(at("ip -batch")? < at("kube-bridge type bridge")?, "newest first");
    assert!(at("kube-bridge type bridge")? < at("ip route flush proto 17")?, "newest first");

    // A plain form filters.
    let some = text(&["--dump-dom", &format!("{url}?actor=&object=kube-bridge")])?;
    assert_eq!(some.matches("<details").count(), 1, "{some}");
    assert!(text(&["--dump-dom", &format!("{url}?actor=nobody")])?.contains("No incidents like this"));

    // On a phone nothing is wider than the screen. The page may not be framed, so its own words are measured in
    // a copy from the file system, which has no policy, with everything unfolded.
    let probe = "<script>for(const d of document.querySelectorAll('details'))d.open=true;\
                 document.title='width '+document.documentElement.scrollWidth</script></body>";
    let (_, body) = guardian.get("/")?;
    let file = lab.dir().join("page.html");
    fs::write(&file, body.replace("</body>", probe))?;
    let frame = lab.dir().join("frame.html");
    fs::write(
        &frame,
        "<iframe id=f width=360 height=700 style='border:0' src='page.html'></iframe>\
        <script>f.onload=()=>document.title='is '+f.contentDocument.title</script>",
    )?;
    let narrow = text(&[
        "--allow-file-access-from-files",
        "--virtual-time-budget=3000",
        "--dump-dom",
        &format!("file://{}", frame.display()),
    ])?;
    assert!(narrow.contains("<title>is width 360</title>"), "{narrow}");

    let dir = pictures(&lab);
    picture(&lab, &dir.join("page-light.png"), "1280,1000", &[])?;
    picture(&lab, &dir.join("page-dark.png"), "1280,1000", &["--blink-settings=preferredColorScheme=0"])?;
    let pixels = [fs::read(dir.join("page-light.png"))?, fs::read(dir.join("page-dark.png"))?];
    assert_ne!(pixels[0], pixels[1], "dark is not light");
    if dir != lab.dir() {
        // To be looked at: unfolded, and on a phone.
        let phone = fs::read_to_string(&file)?;
        fs::write(&file, phone.replace("d.open=true", "d.open=d.matches('details:first-of-type')"))?;
        let of_file = |name: &str, size: &str| {
            let screenshot = format!("--screenshot={}", dir.join(name).display());
            let size = format!("--window-size={size}");
            chromium(&lab, &[&screenshot, &size, &format!("file://{}", file.display())])
        };
        of_file("page-unfolded.png", "1280,1500")?;
        of_file("page-phone.png", "500,1800")?;
    }
    Ok(())
}

const DETAILS: &str = "document.querySelectorAll('details').length";
const OPEN: &str = "[...document.querySelectorAll('details[open]')].map(d => d.innerText).join()";

/// What is new appears by itself, and what was unfolded stays so.
#[test]
fn the_page_refreshes_by_itself() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = three_incidents(&lab)?;
    let mut browser = Browser::start(&lab)?;
    browser.go("http://127.0.0.1:10953/")?;
    assert_eq!(browser.number(DETAILS)?, 3);
    browser.value("document.querySelectorAll('summary')[1].click()")?;
    let open = browser.value(OPEN)?;
    assert!(open.as_str().is_some_and(|text| text.contains("kube-bridge")), "{open}");
    ensure!(
        Command::new(lab.copy("ip", "late")?).args(["route", "del", "10.244.2.0/24"]).status()?.success()
    );
    wait_for("the page to show a fourth", Duration::from_secs(20), || Ok(browser.number(DETAILS)? == 4))?;
    assert!(browser.value("document.querySelector('summary').innerText")?.to_string().contains("late["));
    assert_eq!(browser.value(OPEN)?, open, "what was unfolded, and that alone");
    // An end of the guardian is no end of what is shown.
    guardian.stop()?;
    wait_for("the page to say so", Duration::from_secs(20), || {
        Ok(browser.value("document.getElementById('live').innerText")?.to_string().contains("no answer"))
    })?;
    assert_eq!(browser.number(DETAILS)?, 4);
    Ok(())
}

/// All is there but what the script would say and do.
#[test]
fn the_page_without_scripts() -> Result<()> {
    let lab = Lab::node()?;
    let _guardian = three_incidents(&lab)?;
    let mut browser = Browser::start(&lab)?;
    browser.scripts(false)?;
    browser.go("http://127.0.0.1:10953/")?;
    assert_eq!(browser.number(DETAILS)?, 3);
    let live = browser.value("document.getElementById('live').innerText")?;
    assert_eq!(live, "refresh", "the words of the script, or none");
    browser.value("document.querySelector('summary').click()")?;
    assert!(browser.value(OPEN)?.to_string().contains("ip -batch"), "it unfolds");
    browser.go("http://127.0.0.1:10953/?actor=&object=kube-bridge")?;
    assert_eq!(browser.number(DETAILS)?, 1);
    Ok(())
}

/// Two changes, the second after the first was printed: it is not the end of the input that brings them out.
#[test]
fn events_are_followed_as_they_come() -> Result<()> {
    let lab = Lab::node()?;
    let guardian = lab.guardian().start()?;
    let out = lab.dir().join("followed");
    let mut follower = tethered(
        Command::new(lab::binary())
            .args(["events", "-f", "-o", "json", "--config"])
            .arg(guardian.config())
            .stdout(fs::File::create(&out)?),
    )?;
    for key in ["10.244.2.0/24", "10.244.3.0/24"] {
        lab.ip(&format!("route del {key}"))?;
        wait_for(key, Duration::from_secs(10), || {
            let text = fs::read_to_string(&out)?;
            let of_key = |line: &&str| line.contains(&format!("\"key\":\"{key}\""));
            Ok(text.lines().filter(of_key).any(|line| line.contains("\"outcome\":\"restored\"")))
        })?;
        ensure!(follower.ended()?.is_none(), "it does not go on");
    }
    follower.stop()?;
    Ok(())
}
