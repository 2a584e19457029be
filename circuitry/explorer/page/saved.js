// What is kept: the state in the address; pins, groups, labels and notes in the browser, or on disk when the page is served.
import { html, useEffect, useRef } from "circuitry/view.js";
import { asFile, asHash, checkedState, fromFile, fromHash, initialState, unknown } from "circuitry/state.js";
import { isServed, readNotes, writeNotes } from "circuitry/served.js";

const SAVE_MS = 150, WRITE_MS = 400;
const SHELF = ["pins", "groups", "notes", "labels"];
export const shelfOf = state => Object.fromEntries(SHELF.map(name => [name, state[name]]));
const textOf = state => JSON.stringify(shelfOf(state));
const keyOf = index => `circuitry explorer ${index.study}`;

// Notes on disk that this tab has read or written last: their tag, and what they say.
const disk = { tag: null, text: null };

async function readDisk(index) {
  const { text, tag } = await readNotes();
  const shelf = { ...shelfOf(initialState(index)), ...(text ? fromFile(text, index).state : {}) };
  Object.assign(disk, { tag, text: JSON.stringify(shelf) });
  return text ? shelf : {};
}

// Keep the state in the address, and what was written in the browser, or on disk; say so when another tab writes.
export function useSaved({ index, state, set, setMessage }) {
  useEffect(() => {
    const timer = setTimeout(() => {
      history.replaceState(null, "", asHash(state, index));
      try {
        if (!isServed) localStorage.setItem(keyOf(index), textOf(state));
      } catch { /* a browser may refuse to keep anything; the address holds all of it */ }
    }, SAVE_MS);
    return () => clearTimeout(timer);
  }, [state]);
  const mine = useRef(state);
  mine.current = state;
  useOtherTabs(index, mine, setMessage);
  useDisk(index, mine, set, setMessage);
}

function useOtherTabs(index, mine, setMessage) {
  useEffect(() => {
    const other = event => {
      if (event.key === keyOf(index) && event.newValue !== textOf(mine.current)) setMessage("Another tab changed the pins, groups or notes of this study. Each tab keeps its own in its address; the browser remembers the last one that wrote.");
    };
    addEventListener("storage", other);
    return () => removeEventListener("storage", other);
  }, []);
}

// Write notes to disk a moment after they change, one writing after another; stop at a conflict until it is settled.
function useDisk(index, mine, set, setMessage) {
  const busy = useRef(false), stopped = useRef(false);
  const write = async () => {
    if (busy.current) return;
    busy.current = true;
    try {
      for (let text; !stopped.current && (text = textOf(mine.current)) !== disk.text;) {
        const tag = await writeNotes(asFile(shelfOf(mine.current), index), disk.tag);
        if (tag) Object.assign(disk, { tag, text });
        else conflict();
      }
    } catch (problem) {
      setMessage(`The notes are not on disk. ${problem.message}`);
    }
    busy.current = false;
  };
  const settle = keep => async () => {
    try {
      const theirs = { ...shelfOf(initialState(index)), ...(await readDisk(index)) };
      if (!keep) set(theirs);
      stopped.current = false;
      setMessage(null);
      if (keep) await write();
    } catch (problem) {
      setMessage(problem.message);
    }
  };
  const conflict = () => {
    stopped.current = true;
    setMessage(html`Another tab has saved pins, groups or notes since; yours are not on disk. <button type="button" id="keep-mine" onClick=${settle(true)}>keep mine</button> <button type="button" id="take-theirs" onClick=${settle(false)}>take theirs</button>`);
  };
  const text = textOf(mine.current);
  useEffect(() => {
    if (!isServed) return undefined;
    const timer = setTimeout(write, WRITE_MS);
    return () => clearTimeout(timer);
  }, [text]);
}

// What the browser remembers of the pins, groups and notes; the address wins over it.
function remembered(index) {
  try {
    const found = JSON.parse(localStorage.getItem(keyOf(index)) ?? "{}");
    return typeof found === "object" && found !== null ? found : {};
  } catch {
    return {};
  }
}

// The state that the page starts with: of the address, else of the browser; notes on disk win over both.
export async function firstState(index) {
  const hash = fromHash(location.hash);
  const given = isServed ? hash ?? {} : hash === null || !Object.keys(hash).length ? remembered(index) : hash;
  const kept = isServed ? await readDisk(index) : {};
  const { state, leftOut } = checkedState({ ...given, ...kept }, index);
  const others = SHELF.some(name => name in given && name in kept && JSON.stringify(given[name]) !== JSON.stringify(kept[name]));
  const problem = hash === null ? "The address holds a damaged state; the page starts from the beginning."
    : leftOut.length ? unknown(leftOut)
    : others ? "Pins, groups and notes are those on disk; the address held others." : null;
  return { state: { ...initialState(index), ...state }, problem };
}
