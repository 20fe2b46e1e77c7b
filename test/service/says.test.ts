// What the services say by themselves, for whoever waits for a link: what was chosen, and why there is none.

import { once } from 'node:events';
import net from 'node:net';
import { expect } from 'chai';
import { parsePrimaryConfig, parseSecondaryConfig } from '../../src/config/load.js';
import { MemoryDomain } from '../../src/hypervisor/memory/domain.js';
import { createPrimaryService } from '../../src/service/primary.js';
import { createSecondaryService } from '../../src/service/secondary.js';
import { captureLog } from '../support/capture.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { PAGES } from './world.js';

const hypervisor = { kind: 'embedded' };

async function closedPort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

describe('service: what is said', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('why a secondary has no link: each reason once, however often it tries', async () => {
    const { log, lines } = captureLog();
    const says = (text: string) => lines().filter(({ msg }) => msg === text);
    const secondary = createSecondaryService(
      parseSecondaryConfig({
        domains: [
          {
            ...{ name: 'alpha', primary: `ws://127.0.0.1:${await closedPort()}`, hypervisor },
            failover: { redialMinMs: 5, redialMaxMs: 5 },
          },
        ],
      }),
      {
        log,
        openTarget: ({ name }) => Promise.resolve(new MemoryDomain({ name, pages: PAGES, empty: true })),
      },
    );
    cleanup.add(() => secondary.stop());
    await secondary.start();
    await until('it tries again', () => says('dial failed').length >= 3);
    const told = says('no link to the primary').map(({ level, code, reason }) => ({ level, code, reason }));
    expect(told).to.deep.equal([{ level: 'info', code: 'REFUSED', reason: 'nobody listens there' }]);
  });

  it('what a domain’s hypervisor chose by itself', async () => {
    const { log, lines } = captureLog({ level: 'info' });
    const primary = createPrimaryService(
      parsePrimaryConfig({ listen: { port: 0 }, domains: [{ name: 'alpha', hypervisor }] }),
      {
        log,
        openSource: ({ name }) =>
          Promise.resolve(
            Object.assign(new MemoryDomain({ name, pages: PAGES }), { notes: ['fast, as root'] }),
          ),
      },
    );
    cleanup.add(() => primary.stop());
    await primary.start();
    expect(lines().filter(({ domain, msg }) => domain === 'alpha' && msg === 'fast, as root')).to.have.length(
      1,
    );
  });
});
