// A process that asks the witness `file` once, and ends when nothing is left to do.

import { codeOf } from '../../src/errors.js';
import { createFileWitness } from '../../src/failover/witnesses/file/file.js';

const witness = createFileWitness({ directory: process.argv[2] ?? '', requestTimeoutMs: 300 });
await witness.read('web').catch((error: unknown) => process.stdout.write(codeOf(error)));
