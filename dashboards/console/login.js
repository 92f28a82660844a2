// Signing in: with the admin token, or with the code that a link carries behind its `#`, where no server and no log sees it.

const form = document.getElementById("form");
const said = document.getElementById("said");
const field = document.getElementById("token");

const theme = localStorage.getItem("outgate.theme");
if (theme) document.documentElement.dataset.theme = theme;

async function signIn(credentials) {
  said.textContent = "";
  const answer = await fetch("/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(credentials),
  });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error.message);
  localStorage.setItem("outgate.csrf", told.csrf);
  if (location.pathname === "/") location.reload();
  else location.replace("/");
}

async function trying(credentials) {
  try {
    await signIn(credentials);
  } catch (error) {
    said.textContent = `Not signed in: ${error.message}.`;
    field.select();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  trying({ token: field.value });
});

const code = location.hash.match(/^#code=([\w-]+)$/);
if (code) {
  // Used up now: it need not stay in the history.
  history.replaceState(null, "", location.pathname);
  trying({ code: code[1] });
}
