// What Node would write to standard error by itself goes through the log: its warnings, and the error that ends the
// process. Node waits until they are written, and if nobody reads them, the process neither lives nor dies.

import { flushLog, type Logger } from '../report/log.js';
import { ExitCode } from './exit-codes.js';

const FLUSH_MS = 1000;

export function lastWordsTo(log: Logger): void {
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.warn({ err: warning }, 'a warning of Node'));
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'an error that nobody expected: the process ends');
    process.exit(ExitCode.FAILED);
  });
}

/** At an orderly end: what the log still has to write has its time. */
export function lastWords(): Promise<void> {
  return flushLog(FLUSH_MS);
}
