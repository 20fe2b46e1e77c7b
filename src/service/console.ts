// Where a domain's output goes when the gate has let it out, and the tap, which is before the gate. Files are written
// synchronously: what was let out is with the kernel before anything else happens, whatever kills this process next.

import { closeSync, openSync, writeSync } from 'node:fs';
import type { ConsoleConfig } from '../config/schema.js';

export interface ConsoleWriter {
  write(bytes: Uint8Array): void;
  /** Safe to call twice. */
  close(): void;
}

/** @throws Node's system error if the file cannot be opened */
export function openConsole(config: ConsoleConfig): ConsoleWriter {
  switch (config.kind) {
    case 'stdout':
      return openStandardOutput();
    case 'none':
      return { write: () => undefined, close: () => undefined };
    case 'file':
      return openFile(config.file);
  }
}

/** Appends; an existing file keeps what it has. */
export function openFile(path: string): ConsoleWriter {
  let file: number | null = openSync(path, 'a', 0o600);
  return {
    write(bytes) {
      if (file === null) return;
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
    },
    close() {
      if (file !== null) closeSync(file);
      file = null;
    },
  };
}

function openStandardOutput(): ConsoleWriter {
  // Whoever read our standard output may leave: that is no reason to end a domain.
  const ignore = () => undefined;
  process.stdout.on('error', ignore);
  return {
    write: (bytes) => void process.stdout.write(bytes),
    close: () => void process.stdout.off('error', ignore),
  };
}
