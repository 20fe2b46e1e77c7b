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

async function answer({ id, directory, domain, write }: FileQuestion): Promise<FileAnswer> {
  try {
    if (write === null) return { id, kind: 'read', register: await readNewest(directory, domain) };
    return { id, kind: 'write', outcome: await writeNext(directory, domain, write) };
  } catch (thrown) {
    const error = asError(thrown);
    if (!(error instanceof WitnessError)) throw error;
    return { id, kind: 'error', code: error.code, message: error.message, facts: error.facts };
  }
}

process.on('message', (question: FileQuestion) => {
  void order.do(async () => {
    const answered = await answer(question);
    // Nobody there: 'disconnect' follows.
    process.send?.(answered, undefined, undefined, () => undefined);
  });
});
// Not exit(): that would wait for the threads.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
