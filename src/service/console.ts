// Where a domain's output goes when the gate has let it out, and the tap, which is before the gate. Files are written
// synchronously: what was let out is with the kernel before anything else happens, whatever kills this process next.

import { closeSync, openSync, writeSync } from 'node:fs';
import type { ConsoleConfig } from '../config/schema.js';
import type { Logger } from './log.js';

export interface ConsoleWriter {
  write(bytes: Uint8Array): void;
  /**
   * Opens it anew by its name: what comes from now on goes there, what was written stays where it is. Not there: it has
   * no name. Rejects with Node's system error if it cannot be opened; then all goes on as before.
   */
  reopen?(): Promise<void>;
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

/**
 * Opens outputs anew, by their names: whoever rotates logs has moved them. One that cannot be opened stays as it is.
 */
export async function reopenAll(writers: readonly (ConsoleWriter | null)[], log: Logger): Promise<void> {
  for (const writer of writers) {
    await writer
      ?.reopen?.()
      .catch((error: unknown) =>
        log.error({ err: error }, 'an output cannot be opened anew, and stays as it is'),
      );
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
    reopen() {
      return new Promise((resolve) => {
        if (file !== null) {
          const anew = openSync(path, 'a', 0o600);
          closeSync(file);
          file = anew;
        }
        resolve();
      });
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
