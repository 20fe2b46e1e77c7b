// Text for people, out and in.

import { valueAt } from '../stream/bounds.js';

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / (1024 * 1024)).toFixed(1)} MiB`;
}

/** What somebody else wrote, without what a terminal would obey. */
export function printable(text: string): string {
  return text.replaceAll('\r\n', '\n').replaceAll(/[^\P{Cc}\n\t]/gu, '\ufffd');
}

/** Cuts a byte stream of console output into lines. */
export class LineCutter {
  readonly #line: (line: string) => void;
  #rest = '';

  constructor(line: (line: string) => void) {
    this.#line = line;
  }

  push(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = valueAt(lines, lines.length - 1);
    for (const line of lines.slice(0, -1)) this.#line(line.replace(/\r$/, ''));
  }
}
