// The process that works in the directory for the agent. A call for a file may take for ever (a server that is gone);
// here that costs a process that nothing else needs, and that can be left behind: a process whose thread is in a system
// call cannot end.
//
//   agent ──request──▶ one after another ──▶ the directory

import { asError } from '../../../errors.js';
import { InOrder } from '../../../flow/in-order.js';
import { WitnessError } from '../../error.js';
import { readNewest, writeNext } from './generations.js';
import type { FileAnswer, FileQuestion } from './messages.js';

const order = new InOrder();

/** Who asked does not wait for what is done behind a write. */
async function work({ id, directory, domain, write }: FileQuestion): Promise<void> {
  try {
    if (write === null) answer({ id, kind: 'read', register: await readNewest(directory, domain) });
    else await writeNext(directory, domain, write, (outcome) => answer({ id, kind: 'write', outcome }));
  } catch (thrown) {
    const error = asError(thrown);
    if (!(error instanceof WitnessError)) throw error;
    answer({ id, kind: 'error', code: error.code, message: error.message, facts: error.facts });
  }
}

function answer(answered: FileAnswer): void {
  // Nobody there: 'disconnect' follows.
  process.send?.(answered, undefined, undefined, () => undefined);
}

process.on('message', (question: FileQuestion) => {
  void order.do(() => work(question));
});
// Not exit(): that would wait for the threads.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
