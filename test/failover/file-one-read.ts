// A process that asks the witness `file` once, and ends when nothing is left to do.

import { codeOf } from '../../src/errors.js';
import { createFileWitness } from '../../src/failover/witnesses/file/file.js';

const [directory = '', limit = '300'] = process.argv.slice(2);
const witness = createFileWitness({ directory, requestTimeoutMs: Number(limit) });
await witness.read('web').catch((error: unknown) => process.stdout.write(codeOf(error)));
