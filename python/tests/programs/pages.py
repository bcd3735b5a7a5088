"""
A web server of 400 pages: page N links to the pages 2N + 1 and 2N + 2. It prints its port.
"""

from twisted.internet import reactor
from twisted.web import resource, server

PAGES = 400


class Page(resource.Resource):
    isLeaf = True

    def render_GET(self, request):
        number = int(request.path[1:])
        links = [each for each in (2 * number + 1, 2 * number + 2) if each < PAGES]
        return b"<html><body>%d %s</body></html>" % (number, b"".join(b'<a href="/%d">x</a>' % each for each in links))


port = reactor.listenTCP(0, server.Site(Page()), interface="127.0.0.1")
print(port.getHost().port, flush=True)
reactor.run()
