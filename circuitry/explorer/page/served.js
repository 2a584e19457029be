// What the server of this page does, if it has one: keeps notes, measures units, and looks at images. A page from disk has none.
const does = (document.querySelector("meta[name=served]")?.content ?? "").split(" ").filter(Boolean);

export const isServed = does.includes("notes");
export const isLive = does.includes("live");

export class ServerError extends Error {}

async function ask(path, options = {}) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch {
    throw new ServerError("The server does not answer: start it again.");
  }
}

// The notes on disk, and the tag that says which ones they are.
export async function readNotes() {
  const answer = await ask("notes");
  if (!answer.ok) throw new ServerError(await answer.text());
  return { text: await answer.text(), tag: answer.headers.get("ETag") };
}

// Write notes in place of those with a tag; the new tag, or null when another tab of the browser wrote first.
export async function writeNotes(text, tag) {
  const answer = await ask("notes", { method: "PUT", body: text, headers: { "If-Match": tag } });
  if (answer.status === 412) return null;
  if (!answer.ok) throw new ServerError(await answer.text());
  return answer.headers.get("ETag");
}

async function found(answer) {
  if (!answer.ok) throw new ServerError(answer.status < 500 ? await answer.text() : "The model failed: see what the server printed.");
  return answer.json();
}

// The exact joint effect of units on a class, by domain.
export const measure = async (className, units, by) => found(await ask("effects", { method: "POST", body: JSON.stringify({ className, units, by }) }));

// Why the model gives its answer to an image.
export const look = async file => found(await ask("image", { method: "POST", body: file }));
