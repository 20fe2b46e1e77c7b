#!/usr/bin/env node
// Where the process begins: signals and standard streams first, then the program. What is imported from here runs before anything else is even
// loaded, so it is little.

import { closeSync } from 'node:fs';
import { isatty } from 'node:tty';
import { codeOf } from '../errors.js';
import { ExitCode } from './exit-codes.js';
import { shieldFromSignals } from './signals.js';
import { shieldStandardStreams } from './standard-streams.js';

shieldFromSignals();
shieldStandardStreams();
// Node restores the terminals that it began with, and aborts over one that is gone.
const terminals = [0, 1, 2].filter((fd) => isatty(fd));
process.on('exit', () => {
  for (const fd of terminals) if (!isatty(fd)) closeSync(fd);
});
try {
  const { main } = await import('./program.js');
  process.exitCode = await main();
} catch (error) {
  // The program has many files, and they are read at once.
  if (codeOf(error) !== 'EMFILE') throw error;
  process.stderr.write('romulus: TOO_FEW_DESCRIPTORS: too few files may be open to begin: ulimit -n 256\n');
  process.exitCode = ExitCode.USAGE;
}
