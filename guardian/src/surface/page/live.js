(() => {
  const state = document.getElementById("live");
  state.textContent = "refreshes by itself";
  const refresh = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ["health", "incidents"]) {
        const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
        for (const open of old.querySelectorAll("details[open]")) {
          const same = [...now.querySelectorAll("details")].find((d) => d.id === open.id);
          if (same) same.open = true;
        }
        const [x, y] = [scrollX, scrollY];
        old.replaceWith(now);
        scrollTo(x, y);
      }
      document.title = fresh.title;
      state.textContent = "refreshes by itself";
    } catch {
      state.textContent = "no answer from the guardian; what is shown is old";
    }
  };
  setInterval(refresh, Number(document.body.dataset.every) * 1000);
})();
