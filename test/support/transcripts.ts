// Decisions as transcripts: files that a person can read without the code, and review as a diff.
//
//   # What this scene shows          a scene: a test of that name
//   Prose, for as long as it takes.
//
//   > link A                         a command …
//   gate: restart                    … and what came of it, line by line; a blank line, or the next command, ends it
//
// A scene is played from its first command to its last; its lines must be exactly those of the file. With
// ROMULUS_WRITE_TRANSCRIPTS=1 the file is written instead: read the diff before it is believed.

import { expect } from 'chai';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

interface Scene {
  readonly title: string;
  /** All lines, in order: prose, commands, and what comes of them. */
  readonly lines: readonly string[];
}

/** What comes of each of the commands, in their order. */
export type Play = (commands: readonly string[]) => readonly (readonly string[])[];

const COMMAND = '> ';
const FOLDER = fileURLToPath(new URL('../../../test/transcripts/', import.meta.url));

/** A test of each scene of test/transcripts/`file`. */
export function transcripts(file: string, play: Play): void {
  const path = FOLDER + file;
  const played: string[] = [];
  const scenes = scenesOf(readFileSync(path, 'utf8'));
  const writes = process.env['ROMULUS_WRITE_TRANSCRIPTS'] === '1';
  for (const { title, lines } of scenes) {
    it(title, () => {
      const seen = replayed(lines, play);
      played.push(`# ${title}`, ...seen);
      if (!writes) expect(seen.join('\n')).to.equal(lines.join('\n'));
    });
  }
  if (writes) after(() => writeFileSync(path, played.join('\n')));
}

function scenesOf(text: string): Scene[] {
  const scenes: { title: string; lines: string[] }[] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('# ')) scenes.push({ title: line.slice(2), lines: [] });
    else scenes.at(-1)?.lines.push(line);
  }
  return scenes;
}

/** The lines of a scene, with what came of its commands this time. */
function replayed(lines: readonly string[], play: Play): string[] {
  const outcomes = play(lines.filter((line) => line.startsWith(COMMAND)).map((line) => line.slice(2)));
  const seen: string[] = [];
  let command = -1;
  let inOutput = false;
  for (const line of lines) {
    if (line.startsWith(COMMAND)) {
      command++;
      seen.push(line, ...(outcomes[command] ?? []));
      inOutput = true;
    } else if (line === '' || !inOutput) {
      seen.push(line);
      inOutput = false;
    }
  }
  return seen;
}
