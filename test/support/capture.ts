// A logger whose lines a test can read.

import { Writable } from 'node:stream';
import type { LogConfig } from '../../src/config/sections.js';
import { createLogger, type Logger } from '../../src/report/log.js';

export interface CapturedLog {
  readonly log: Logger;
  /** Lines so far, parsed. */
  readonly lines: () => Record<string, unknown>[];
}

export function captureLog(config: Partial<LogConfig> = {}): CapturedLog {
  let written = '';
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      written += chunk.toString();
      done();
    },
  });
  return {
    log: createLogger({ level: 'trace', format: 'json', ...config }, sink),
    lines: () =>
      written
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}
