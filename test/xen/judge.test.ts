import { expect } from 'chai';
import { judgeConsole } from './judge.js';

const resumed = 'tiny: resumed in a new domain\n';

describe('the judge of restored guests', () => {
  it('waits until the guest has woken up and ticked twice, the half line at the end not counted', () => {
    for (const console of ['', 'TICK 4 OK\n', resumed, `${resumed}TICK 5 OK\nTICK 6 OK`]) {
      expect(judgeConsole(console, 4)).to.deep.equal({ kind: 'waiting' });
    }
  });

  it('is content with the ticks after the checkpoint, whatever the ring still held from before', () => {
    expect(judgeConsole(`TICK 4 OK\r\n${resumed}TICK 5 OK\nTICK 6 OK\n`, 4)).to.deep.equal({
      kind: 'alive',
      ticks: [5, 6],
    });
  });

  it('condemns a tick that is missing, is there twice, or is BAD, and a guest that starts anew', () => {
    const texts = ['TICK 6 OK\n', 'TICK 5 OK\nTICK 5 OK\n', 'TICK 5 BAD\n', 'tiny: up\n'];
    for (const console of texts) {
      expect(judgeConsole(resumed + console, 4)).to.have.property('kind', 'wrong');
    }
    expect(judgeConsole('TICK 4 BAD\n', 4)).to.have.property('kind', 'wrong');
  });
});
