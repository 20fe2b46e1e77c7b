// Standard output that is a file: written by the process that may hang, and not after its time.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, closeSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { Cleanup } from '../support/cleanup.js';
import { monotonicMs } from '../../src/flow/clock.js';
import { childrenOf, stopProcesses } from '../support/processes.js';
import { until } from '../support/until.js';

const OUTLET_MODULE = new URL('../../src/output/standard-outlet.js', import.meta.url).href;

/** Offers each piece that it is told of, and tells how much of it was taken. */
const PROGRAM = `
  import { standardOutlet } from ${JSON.stringify(OUTLET_MODULE)};
  const outlet = standardOutlet(1);
  process.on('message', async ({ text, untilMs }) => {
    process.send({ taken: await outlet.write(Buffer.from(text), untilMs) });
  });
`;

describe('standard output that is a regular file', function () {
  this.timeout(30_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('takes nothing of a piece whose time is over, also where it is over on the way', async () => {
    const file = `${await cleanup.directory()}/out`;
    const fd = openSync(file, 'a');
    const child = spawn(process.execPath, ['--input-type=module', '--eval', PROGRAM], {
      stdio: ['ignore', fd, 'inherit', 'ipc'],
    });
    closeSync(fd);
    const closed = once(child, 'close');
    cleanup.add(async () => {
      child.kill('SIGKILL');
      await closed;
    });
    const answers: number[] = [];
    child.on('message', ({ taken }: { taken: number }) => answers.push(taken));
    const offered = async (text: string, untilMs: number): Promise<number> => {
      const count = answers.length;
      child.send({ text, untilMs });
      await until('an answer', () => answers.length > count);
      return answers[count] ?? NaN;
    };
    expect(await offered('in time\n', monotonicMs() + 20_000)).to.equal(8);
    expect(await offered('too late\n', monotonicMs() - 1)).to.equal(0);

    const [writer = 0] = childrenOf(child.pid ?? 0);
    await stopProcesses([writer]);
    const untilMs = monotonicMs() + 200;
    const late = offered('late on the way\n', untilMs);
    await until('its time is over', () => monotonicMs() > untilMs);
    process.kill(writer, 'SIGCONT');
    expect(await late).to.equal(0);

    expect(await offered('in time again\n', monotonicMs() + 20_000)).to.equal(14);
    expect(readFileSync(file, 'utf8')).to.equal('in time\nin time again\n');
  });
});
