"""huey's SqliteHuey storage. A dequeue deletes at once: there is no lease, so a crash of the worker loses the message."""

from huey import SqliteHuey

import drive


class Peer:
    def open(self, directory, case):
        # fsync=None leaves SQLite's own default, which the pragma below then sets for this run's only connection.
        self.storage = SqliteHuey(filename=f"{directory}/huey.db", fsync=case.sync == "full" or None, timeout=60).storage
        if case.sync == "normal":
            self.storage.conn.execute("pragma synchronous=NORMAL")

    def send(self, _worker, bodies):
        for text in bodies:
            self.storage.enqueue(text.encode())

    def receive(self, _worker, maximum):
        messages = []
        while len(messages) < maximum and (data := self.storage.dequeue()) is not None:
            messages.append((None, bytes(data).decode()))
        return messages

    def delete(self, _worker, receipts):
        pass

    def left(self):
        return self.storage.queue_size()

    def settings(self):
        [[journal]] = self.storage.sql("pragma journal_mode", results=True)
        [[synchronous]] = self.storage.sql("pragma synchronous", results=True)
        return drive.settings(journal, synchronous)


drive.main(Peer())
