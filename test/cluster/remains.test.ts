// Nothing of a cluster stays when the program that made it is ended, however: no process, interface, mount or file.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { fileURLToPath } from 'node:url';
import { Cleanup } from '../support/cleanup.js';
import { processesWith } from '../support/processes.js';
import { until } from '../support/until.js';
import { needCluster, PATIENCE_MS } from './cluster.js';

const PROGRAM = fileURLToPath(new URL('./interrupted.js', import.meta.url));
/** The program, what holds the lab, the etcd and the way to it, two agents. */
const PROCESSES_MIN = 6;

function inventory(temporary: string): string[] {
  return [
    ...readFileSync('/proc/self/mountinfo', 'utf8').split('\n'),
    ...readdirSync('/sys/class/net'),
    ...readdirSync(temporary),
  ];
}

describe('cluster: what is left of it', function () {
  this.timeout(2 * PATIENCE_MS);
  const cleanup = new Cleanup();
  before(async function () {
    await needCluster(this);
  });
  afterEach(() => cleanup.run());

  for (const signal of ['SIGINT', 'SIGKILL'] as const) {
    it(`nothing: ${signal}`, async () => {
      const temporary = await cleanup.directory();
      const mark = `cluster-${process.pid}-${signal}`;
      const before = inventory(temporary);
      const program = spawn(process.execPath, [PROGRAM], {
        stdio: ['ignore', 'pipe', 'inherit'],
        env: { ...process.env, ROMULUS_TEST_MARK: mark, TMPDIR: temporary },
        detached: true, // what it stops is of its group, and not of ours
      });
      let said = '';
      program.stdout.on('data', (text: Buffer) => (said += text.toString()));
      await until('at work', () => said.includes('at work'), PATIENCE_MS);
      expect(processesWith(mark, 'environ').length).to.be.at.least(PROCESSES_MIN);
      const closed = once(program, 'exit');
      program.kill(signal);
      await closed;
      const isClean = () =>
        processesWith(mark, 'environ').length === 0 &&
        inventory(temporary).every((item) => before.includes(item));
      await until('nothing is left', isClean);
    });
  }
});
