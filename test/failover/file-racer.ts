// A host that writes one generation after another, for the tests of the witness `file`: started by them, told the
// directory, its name and how many generations there shall be. Tells on its standard output which of them are its own.

import { createFileWitness } from '../../src/failover/witnesses/file/file.js';
import type { Register } from '../../src/failover/register.js';
import { alone } from './support.js';

const [directory = '', name = '', last = '0'] = process.argv.slice(2);
const witness = createFileWitness({ directory, requestTimeoutMs: 60_000 });
const own: number[] = [];
let expected: Register | null = null;
for (let attempt = 0; expected === null || expected.generation < Number(last); attempt++) {
  const outcome = await witness.compareAndSet('web', expected, alone(name), `${name}-${attempt}`);
  const held: Register | null = await witness.read('web');
  if (outcome === 'won') own.push(expected === null ? 1 : expected.generation + 1);
  expected = held;
}
await witness.close();
process.stdout.write(JSON.stringify(own));
