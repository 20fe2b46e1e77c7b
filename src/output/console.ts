// Where a domain's output goes when the gate has let it out. Nothing here waits for whoever reads it: what is not taken
// stays with the gate (see output/outlet.ts).

import type { Logger } from 'pino';
import { asError } from '../errors.js';
import type { Reloaded } from '../flow/reloaded.js';
import { FileOutlet } from './file-outlet.js';
import { NOWHERE, outletOf, type Outlet } from './outlet.js';
import type { PumpReports } from './pump.js';
import { standardOutlet } from './standard-outlet.js';

/** Standard output, a file (regular, FIFO, device, terminal) by its path, or nowhere. */
export type ConsoleConfig =
  { readonly kind: 'stdout' } | { readonly kind: 'none' } | { readonly kind: 'file'; readonly file: string };

/** A console that a program brings: it takes all that it is given. Octets that it throws at are given to it again. */
export interface ConsoleWriter {
  write(bytes: Uint8Array): void;
  /** Safe to call twice. */
  close(): void;
}

/** What was let out has so long to leave when a domain ends. */
export const LAST_OUTPUT_MS = 1000;

/** `own` in the place of what is configured. @throws Node's system error if the file cannot be opened */
export async function openConsole(
  config: ConsoleConfig,
  own: ConsoleWriter | undefined,
  log: Logger,
): Promise<Outlet> {
  if (own) return outletOf(own);
  switch (config.kind) {
    case 'stdout': {
      const outlet = standardOutlet(1);
      // That is no reason to end a domain, nor to hold what it says until the reader comes back: it cannot.
      void outlet.gone.then((error) =>
        log.warn({ err: error }, 'nobody reads standard output any more: what the domain says goes nowhere'),
      );
      return outlet;
    }
    case 'none':
      return NOWHERE;
    case 'file': {
      const outlet = new FileOutlet({ path: config.file });
      await outlet.open();
      return outlet;
    }
  }
}

export interface OutputFile {
  readonly file: string | undefined;
  readonly output: Pick<Outlet, 'reopen'> | null;
}

/**
 * Opens outputs anew, by their names: whoever rotates logs has moved them. One that cannot be opened stays as it is, and
 * that is said.
 */
export async function reopenAll(outputs: readonly OutputFile[], log: Logger): Promise<readonly Reloaded[]> {
  const reopened = outputs.map(async ({ file, output }): Promise<readonly Reloaded[]> => {
    if (file === undefined || !output?.reopen) return [];
    try {
      await output.reopen();
      return [{ file, error: null }];
    } catch (thrown) {
      const error = asError(thrown);
      log.error({ err: error }, 'an output cannot be opened anew, and stays as it is');
      return [{ file, error }];
    }
  });
  return (await Promise.all(reopened)).flat();
}

/** The console's file, if it has one. */
export function consoleFile(config: ConsoleConfig): string | undefined {
  return config.kind === 'file' ? config.file : undefined;
}

/** Said on change. */
export function consoleReports(log: Logger): PumpReports {
  return {
    failing: (error) =>
      log.warn({ err: error }, 'the console cannot be written: output is kept, and tried again'),
    working: () => log.info('the console is written again'),
  };
}
